"""One container on one machine: spec, OCI runtime, conmon, cgroups; no rows and no networks."""
