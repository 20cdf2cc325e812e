"""What no team may ever ask of the host: read from a file of root's, raised by nobody else.

`HOME/ceiling.json` belongs to root; neither web nor the database can change it, and the worker
checks every container against it once more before it makes anything. Keys it does not know are
an error: a ceiling that is misread must not pass for a higher one. What a container's settings
ask for is held against it in one place, `engine.containers.policy`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import EngineError, PolicyDenied

_FREE_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
# What may be added without harm to the host or to others, besides Docker's defaults.
_CAPABILITIES = """
    CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP
    NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE
    NET_ADMIN NET_BROADCAST IPC_LOCK IPC_OWNER LEASE SYS_NICE SYS_PTRACE
"""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ceiling:
    """One field a key of the file; the defaults hold for keys that are not in it.

    `publish_addresses`: host addresses ports may be published on; `publish_ports`: the lowest and
    highest host port. `bind_paths`: folders of the host that may be mounted, with all below them.
    `devices`: device files, or folders of them. `capabilities`: the most that may be added, ALL
    for any. `sysctls`: patterns of those that may be set. `network_subnets`: where networks may
    lie. `fetch_addresses`: networks of the host's own from which may be fetched what somebody names
    by its address. `privileged`, `host_namespaces`, `seccomp_unconfined`: whether they may be asked
    for.
    """

    publish_addresses: tuple[IPv4Network, ...] = (IPv4Network("0.0.0.0/0"),)
    publish_ports: tuple[int, int] = (1, 65535)
    bind_paths: tuple[str, ...] = ()
    privileged: bool = False
    host_namespaces: bool = False
    devices: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = tuple(_CAPABILITIES.split())
    sysctls: tuple[str, ...] = ("*",)
    seccomp_unconfined: bool = False
    network_subnets: tuple[IPv4Network, ...] = tuple(IPv4Network(text) for text in _PRIVATE)
    fetch_addresses: tuple[IPv4Network, ...] = ()

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
        return _read(path, (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size))

    def to_json(self) -> dict[str, object]:
        """As the file has it."""
        found: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                value = [str(one) if isinstance(one, IPv4Network) else one for one in value]
            found[field.name] = value
        return found

    def check(self, allowed: bool, key: str, what: str, **context: str | int) -> None:
        """Raises PolicyDenied with `what` ("… is not allowed") unless `allowed`."""
        if not allowed:
            raise PolicyDenied(
                f"{what} on this machine",
                hint=f"root's ceiling.json says so: {key}",
                key=key,
                **context,
            )

    def check_privileged(self) -> None:
        """Raises PolicyDenied."""
        self.check(self.privileged, "privileged", "privileged containers are not allowed")

    def check_bind(self, path: str) -> None:
        """`path` of the host, as it is written; what links in it lead to is another path: whoever
        mounts it asks again with the real one. Raises PolicyDenied."""
        self.check(
            any(_below(os.path.normpath(path), folder) for folder in self.bind_paths),
            "bind_paths",
            f"the host's {path} may not be mounted into containers",
            field="mounts",
            path=path,
        )

    def check_device(self, real: str) -> None:
        """`real`: a device's path on the host without links in it. Raises PolicyDenied."""
        self.check(
            any(_below(os.path.normpath(real), folder) for folder in self.devices),
            "devices",
            f"the host's device {real} may not be used in containers",
            field="devices",
            path=real,
        )

    def check_subnet(self, subnet: IPv4Network) -> None:
        """Raises PolicyDenied when a network may not lie there."""
        self.check(
            any(subnet.subnet_of(allowed) for allowed in self.network_subnets),
            "network_subnets",
            f"networks may not use the addresses {subnet}",
            subnet=str(subnet),
        )

    def check_ports(self, wanted: Iterable[tuple[str, int]]) -> None:
        """`wanted`: (host address, host port; 0 for any the kernel finds free). Raises PolicyDenied
        naming the first that is or may be beyond the ceiling."""
        low, high = self.publish_ports
        for address, port in wanted:
            if not any(_within(address, network) for network in self.publish_addresses):
                raise PolicyDenied(
                    f"ports may not be published on {address} on this machine",
                    hint="root's ceiling.json says so: publish_addresses",
                    key="publish_addresses",
                    field="ports",
                    address=address,
                )
            if not port:
                first, last = map(int, _FREE_PORTS.read_text().split())
                if first < low or high < last:
                    raise PolicyDenied(
                        "a free port may lie beyond what this machine allows",
                        hint=f"choose one from {low} to {high}",
                        field="ports",
                        port=port,
                    )
            elif not low <= port <= high:
                raise PolicyDenied(
                    f"host port {port} may not be published on this machine",
                    hint=f"choose one from {low} to {high}",
                    field="ports",
                    port=port,
                )


def _within(address: str, network: IPv4Network) -> bool:
    """0.0.0.0 means every address, so only a ceiling over all of them covers it."""
    if address == "0.0.0.0":
        return network.prefixlen == 0
    return IPv4Address(address) in network


@lru_cache(maxsize=8)
def _read(path: Path, stamp: tuple[int, ...]) -> Ceiling:
    """Once for each state of the file: every start asks several times."""
    try:
        raw = json.loads(path.read_text())
        unknown = set(raw) - set(_READERS)
        if unknown:
            raise ValueError(f"unknown keys: {', '.join(sorted(unknown))}")
        return Ceiling(**{key: _READERS[key](key, value) for key, value in raw.items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise EngineError(f"{path} cannot be read: {error}", hint="see SECURITY.md") from error


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _texts(kind: Callable[[str], T]) -> Callable[[str, object], tuple[T, ...]]:
    def read(key: str, value: object) -> tuple[T, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{key} is no list of texts")
        return tuple(kind(item) for item in value)

    return read


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key} is neither true nor false")
    return value


def _span(key: str, value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(n) is int for n in value):
        raise ValueError(f"{key} is not two numbers")
    return value[0], value[1]


def _folder(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"not an absolute path: {text}")
    # Root's own links are taken as meant; a path asked for is compared without links too.
    return os.path.realpath(text)


def _capability(text: str) -> str:
    return text.upper().removeprefix("CAP_")


_READERS: dict[str, Callable[[str, object], Any]] = {
    "publish_addresses": _texts(IPv4Network),
    "publish_ports": _span,
    "bind_paths": _texts(_folder),
    "privileged": _flag,
    "host_namespaces": _flag,
    "devices": _texts(_folder),
    "capabilities": _texts(_capability),
    "sysctls": _texts(str),
    "seccomp_unconfined": _flag,
    "network_subnets": _texts(IPv4Network),
    "fetch_addresses": _texts(IPv4Network),
}
