"""Ports as EXPOSE names them, after expansion: one, or a range, with a protocol."""

from __future__ import annotations

import re

from engine.errors import InvalidInput

PROTOCOLS = ("tcp", "udp", "sctp")
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


def exposed_ports(word: str) -> tuple[str, ...]:
    """`8000-8001/UDP` -> ("8000/udp", "8001/udp"). Raises InvalidInput.

    The address and host port of `127.0.0.1:80:8080` are dropped, as Docker does: EXPOSE only
    documents.
    """
    ports, slash, protocol = word.rpartition(":")[2].partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidInput(
            f"an unknown protocol: {word}", hint=f"protocols are {', '.join(PROTOCOLS)}"
        )
    match = _PORTS.fullmatch(ports)
    first = int(match[1]) if match else 0
    last = int(match[2] or match[1]) if match else 0
    if not 1 <= first <= last <= 65_535:
        raise InvalidInput(
            f"not a port: {word}", hint="write a number from 1 to 65535, or a range like 8000-8010"
        )
    return tuple(f"{port}/{protocol}" for port in range(first, last + 1))
