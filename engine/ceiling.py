"""What no team may ever ask of the host: read from a file of root's, raised by nobody else.

`HOME/ceiling.json` belongs to root; neither web nor the database can change it, and the worker
checks every container against it once more before it makes anything. Keys it does not know are
an error: a ceiling that is misread must not pass for a higher one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from engine.errors import EngineError, PolicyDenied

_KEYS = {"publish_addresses", "publish_ports"}
_FREE_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(frozen=True, slots=True)
class Ceiling:
    """`publish_addresses`: host addresses ports may be published on; `publish_ports`: the lowest
    and highest host port that may be published."""

    publish_addresses: tuple[IPv4Network, ...] = (IPv4Network("0.0.0.0/0"),)
    publish_ports: tuple[int, int] = (1, 65535)

    @classmethod
    def load(cls, path: Path) -> Ceiling:
        """Raises EngineError when the file is there but is not one that only root may write."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return cls()
        if status.st_uid != 0 or status.st_mode & 0o022:
            raise EngineError(
                f"{path} may be written by others than root",
                hint=f"chown root {path} && chmod 644 {path}",
            )
        try:
            raw = json.loads(path.read_text())
            unknown = set(raw) - _KEYS
            if unknown:
                raise ValueError(f"unknown keys: {', '.join(sorted(unknown))}")
            low, high = raw.get("publish_ports", (1, 65535))
            return cls(
                tuple(IPv4Network(n) for n in raw.get("publish_addresses", ["0.0.0.0/0"])),
                (int(low), int(high)),
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise EngineError(f"{path} cannot be read: {error}", hint="see SECURITY.md") from error

    def check_ports(self, wanted: Iterable[tuple[str, int]]) -> None:
        """`wanted`: (host address, host port; 0 for any the kernel finds free). Raises PolicyDenied
        naming the first that is or may be beyond the ceiling."""
        low, high = self.publish_ports
        for address, port in wanted:
            if not any(_within(address, network) for network in self.publish_addresses):
                raise PolicyDenied(
                    f"ports may not be published on {address} on this machine",
                    hint="root's ceiling.json lists the addresses that may be used",
                    address=address,
                )
            if not port:
                first, last = map(int, _FREE_PORTS.read_text().split())
                if first < low or high < last:
                    raise PolicyDenied(
                        "a free port may lie beyond what this machine allows",
                        hint=f"choose one from {low} to {high}",
                        port=port,
                    )
            elif not low <= port <= high:
                raise PolicyDenied(
                    f"host port {port} may not be published on this machine",
                    hint=f"choose one from {low} to {high}",
                    port=port,
                )


def _within(address: str, network: IPv4Network) -> bool:
    """0.0.0.0 means every address, so only a ceiling over all of them covers it."""
    if address == "0.0.0.0":
        return network.prefixlen == 0
    return IPv4Address(address) in network
