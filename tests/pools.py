"""Address pools for tests: each run takes its own, so that several can go at once."""

from __future__ import annotations

import secrets
from ipaddress import IPv4Address, IPv4Network


def free_pool() -> str:
    """A random /20 inside 10.64.0.0/10."""
    base = int(IPv4Address("10.64.0.0")) + (secrets.randbelow(1 << 10) << 12)
    return str(IPv4Network((base, 20)))
