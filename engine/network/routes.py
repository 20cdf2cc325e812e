"""What this machine has routes to, as the kernel's own list has it: processes that only choose
addresses need no netlink library for it (12 MB each)."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

_ROUTES = Path("/proc/net/route")


def host_subnets() -> list[IPv4Network]:
    """Every IPv4 subnet of the main table; the default route is none (proc_net_route(5))."""
    found = []
    for line in _ROUTES.read_text().splitlines()[1:]:
        fields = line.split()
        address, mask = _address(fields[1]), _address(fields[7])
        if int(address):
            found.append(IPv4Network((int(address), bin(int(mask)).count("1"))))
    return found


def _address(text: str) -> IPv4Address:
    """Eight hex digits of the number as it lies in memory."""
    return IPv4Address(socket.inet_ntoa(struct.pack("=I", int(text, 16))))
