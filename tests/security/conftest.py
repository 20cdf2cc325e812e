"""Fixtures of the tests that use this machine."""

from tests.machine import machine, one_machine
from tests.services_home import busybox_registry, namespace, node, services_home

__all__ = [
    "busybox_registry",
    "machine",
    "namespace",
    "node",
    "one_machine",
    "services_home",
]
