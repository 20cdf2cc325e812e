"""The Docker Engine API (1.24 to 1.47) on the same services as the pages; one module a noun.

`../shared/specs/docker-engine-swagger.yaml` names what each answers; what dockerd does and the
document does not say is held by tests/conformance.
"""
