"""The values of the network part: what a network, an attachment and a published port are.

Nothing here touches the machine. A wrong value is InvalidInput at construction, so that what
reaches nftables and aardvark-dns as text is known to be harmless (security case 10).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, ip_address
from itertools import chain
from typing import Any, Literal, get_args

from engine.errors import InvalidInput

Protocol = Literal["tcp", "udp"]
ANY_ADDRESS = IPv4Address("0.0.0.0")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """One bridge and the subnet behind it.

    `internal`: nothing passes between it and anywhere but this machine; containers get no
    default route, and names outside the network are not resolved for them. `mtu` 0 is the
    kernel's own.
    """

    id: str
    name: str
    subnet: IPv4Network
    gateway: IPv4Address
    bridge: str
    internal: bool = False
    mtu: int = 0

    def __post_init__(self) -> None:
        _require(_ID.fullmatch(self.id), "network id", self.id)
        if type(self.mtu) is not int or not (self.mtu == 0 or 68 <= self.mtu <= 65535):
            raise InvalidInput(f"mtu is out of range: {self.mtu}", field="mtu")
        _require(_INTERFACE.fullmatch(self.bridge), "bridge name", self.bridge)
        if self.gateway not in self.subnet or self.gateway in (
            self.subnet.network_address,
            self.subnet.broadcast_address,
        ):
            raise InvalidInput(
                f"gateway {self.gateway} is no host address of {self.subnet}", field="gateway"
            )

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "subnet": str(self.subnet),
            "gateway": str(self.gateway),
            "bridge": self.bridge,
            "internal": self.internal,
            "mtu": self.mtu,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NetworkSpec:
        """Raises KeyError, TypeError or ValueError on another shape, InvalidInput on values."""
        return cls(
            id=data["id"],
            name=data["name"],
            subnet=IPv4Network(data["subnet"]),
            gateway=IPv4Address(data["gateway"]),
            bridge=data["bridge"],
            internal=bool(data["internal"]),
            mtu=data.get("mtu", 0),
        )


@dataclass(frozen=True, slots=True)
class Attachment:
    """One end of a container in one network.

    `names` are what the network's other containers resolve to `address`: the container's name,
    its aliases and its short id, in that order (the first is the answer to a reverse lookup).
    `gateway`: whether the container's default route may lead there; the first one's does. `dns`:
    who is asked for names that are none of the network's, instead of the host's servers.
    `link_local`: addresses it has besides. `links`: (name, alias) of others on the network, whom
    this container alone may ask for by the alias.
    """

    network: NetworkSpec
    address: IPv4Address
    mac: str
    interface: str = "eth0"
    names: tuple[str, ...] = ()
    gateway: bool = True
    dns: tuple[str, ...] = ()
    link_local: tuple[IPv4Address, ...] = ()
    links: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        _require(_MAC.fullmatch(self.mac), "mac address", self.mac)
        _require(_INTERFACE.fullmatch(self.interface), "interface name", self.interface)
        if self.address not in self.network.subnet or self.address == self.network.gateway:
            raise InvalidInput(
                f"address {self.address} cannot be used in {self.network.subnet}", field="address"
            )
        for name in (*self.names, *chain.from_iterable(self.links)):
            _require(is_resolvable(name), "name to resolve", name)
        for server in self.dns:
            _require(_is_address(server), "dns server", server)

    def to_json(self) -> dict[str, Any]:
        return {
            "network": self.network.to_json(),
            "address": str(self.address),
            "mac": self.mac,
            "interface": self.interface,
            "names": list(self.names),
            "gateway": self.gateway,
            "dns": list(self.dns),
            "link_local": [str(address) for address in self.link_local],
            "links": [list(link) for link in self.links],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Attachment:
        """Raises as NetworkSpec.from_json does."""
        return cls(
            network=NetworkSpec.from_json(data["network"]),
            address=IPv4Address(data["address"]),
            mac=data["mac"],
            interface=data["interface"],
            names=tuple(data["names"]),
            dns=tuple(data.get("dns", ())),
            link_local=tuple(map(IPv4Address, data.get("link_local", ()))),
            links=tuple((name, alias) for name, alias in data.get("links", ())),
            gateway=bool(data.get("gateway", True)),
        )


@dataclass(frozen=True, slots=True)
class PortBinding:
    """What somebody asks for; `host_port` 0 asks for a free one."""

    container_port: int
    protocol: Protocol = "tcp"
    host_ip: str = "0.0.0.0"
    host_port: int = 0

    def __post_init__(self) -> None:
        _check_port(self.container_port, 1, "container_port")
        _check_port(self.host_port, 0, "host_port")
        _check_protocol(self.protocol)
        _check_host_ip(self.host_ip)


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """What was given: `host_port` is never 0. `host_ip` 0.0.0.0 is every address of the host."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: Protocol

    def __post_init__(self) -> None:
        _check_port(self.container_port, 1, "container_port")
        _check_port(self.host_port, 1, "host_port")
        _check_protocol(self.protocol)
        _check_host_ip(self.host_ip)

    def to_json(self) -> dict[str, Any]:
        return {
            "host_ip": self.host_ip,
            "host_port": self.host_port,
            "container_port": self.container_port,
            "protocol": self.protocol,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PublishedPort:
        """Raises as NetworkSpec.from_json does."""
        return cls(
            host_ip=data["host_ip"],
            host_port=int(data["host_port"]),
            container_port=int(data["container_port"]),
            protocol=data["protocol"],
        )


def asked_servers(wanted: Iterable[str]) -> tuple[str, ...]:
    """Those of a container's `--dns` that its network's server may ask for it: not the loopback,
    which would be the host's then and not the container's."""
    return tuple(text for text in wanted if not ip_address(text).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_resolvable(name: str) -> bool:
    """Whether it is labels of at most 63 letters, digits, _ and inner - with dots between."""
    return len(name) <= 253 and all(_LABEL.fullmatch(part) for part in name.split("."))


def check_id(kind: str, value: str) -> str:
    """The id itself, safe as a file's name and inside a rule; InvalidInput otherwise."""
    _require(_ID.fullmatch(value), kind, value)
    return value


def _require(holds: object, what: str, value: str) -> None:
    if not holds:
        raise InvalidInput(f"{what} is not valid: {value!r}", field=what)


def _check_port(port: int, least: int, field: str) -> None:
    # The type too: bindings come from JSON, and what is no number must not reach nftables.
    if type(port) is not int or not least <= port <= 65535:
        raise InvalidInput(
            f"{field} is out of range: {port}", hint=f"use {least} to 65535", field=field
        )


def _check_protocol(protocol: str) -> None:
    if protocol not in get_args(Protocol):
        raise InvalidInput(
            f"protocol cannot be published: {protocol}", hint="use tcp or udp", field="protocol"
        )


def _check_host_ip(host_ip: str) -> None:
    try:
        if not isinstance(host_ip, str):  # IPv4Address takes numbers as well
            raise AddressValueError(host_ip)
        IPv4Address(host_ip)
    except AddressValueError as error:
        raise InvalidInput(
            f"host address is not an IPv4 address: {host_ip}",
            hint="use 0.0.0.0 for every address, 127.0.0.1 for this machine only",
            field="host_ip",
        ) from error
