"""The part of the services that touches disk, runtime and network: for worker and engined only.

Handlers take an Operation and the event that says "cancelled"; they check the policy again, do
the work under the container directory's lock, and write what became of it.
"""
