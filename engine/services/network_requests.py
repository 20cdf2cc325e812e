"""What a new network is asked to be, and all that can be wrong with it before any row is looked at.

The words are moby's (daemon/network.go, libnetwork).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import Any

from engine.errors import Forbidden, InvalidInput, NotFound, Unsupported

DRIVER = "bridge"
MTU = "com.docker.network.driver.mtu"
_BRIDGE = "com.docker.network.bridge."
# What our bridges are; another value is refused and not passed over.
_FIXED = {
    f"{_BRIDGE}default_bridge": ("true", "false"),
    f"{_BRIDGE}enable_icc": ("true", "1"),
    f"{_BRIDGE}enable_ip_masquerade": ("true", "1"),
    f"{_BRIDGE}host_binding_ipv4": ("0.0.0.0", ""),
    f"{_BRIDGE}gateway_mode_ipv4": ("nat", ""),
}
_PREDEFINED = ("bridge", "host", "none", "default")


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """What `docker network create` says; "" leaves it to us.

    `ip_range` is the part of the subnet addresses are taken from, `reserved` are addresses of
    others in it, by name. `ipam_options` are shown again."""

    name: str
    driver: str = DRIVER
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    reserved: Mapping[str, str] = field(default_factory=dict)
    ipam_options: Mapping[str, str] | None = None
    internal: bool = False
    attachable: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


def check(request: NetworkRequest) -> None:
    """Raises InvalidInput (with `field`), Forbidden, NotFound, Unsupported."""
    _check_name(request.name)
    _check_driver(request.driver)
    _check_options(request.options)


def _check_name(name: str) -> None:
    if not name.strip():
        raise InvalidInput(f"invalid name: {name}", field="name")
    if name in _PREDEFINED:
        raise Forbidden(
            f"operation is not permitted on predefined {name} network ", field="name", name=name
        )
    if len(name) > 255 or not name.isprintable() or "/" in name:
        raise InvalidInput(
            f"invalid name: {name}",
            hint="at most 255 characters, without / and control characters",
            field="name",
        )


def _check_driver(driver: str) -> None:
    if driver in (DRIVER, "", "default"):
        return
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed', field="driver")
    if driver in ("overlay", "macvlan", "ipvlan"):
        raise Unsupported(f"networks of driver {driver} are not supported", hint="use bridge")
    raise NotFound(f'plugin "{driver}" not found', field="driver")


def _check_options(options: Mapping[str, str]) -> None:
    """Words of others are kept as they are, as moby does; of ours those that we keep to."""
    for name, value in options.items():
        if name in _FIXED:
            if value not in _FIXED[name]:
                raise Unsupported(f"{name}={value} is not supported", hint="leave it out")
        elif name == MTU:
            if not value.isascii() or not value.isdecimal():
                raise InvalidInput(
                    f'failed to parse {MTU} value: {value} (strconv.Atoi: parsing "{value}": '
                    "invalid syntax)",
                    field="options",
                )
            if int(value) and not 68 <= int(value) <= 65535:
                raise InvalidInput(f"invalid mtu: {value}", hint="68 to 65535", field="options")
        elif name.startswith("com.docker.network."):
            raise Unsupported(f"the option {name} is not supported", hint="leave it out")


def subnet_of(text: str) -> IPv4Network:
    """Raises InvalidInput; Unsupported for IPv6."""
    try:
        subnet = IPv4Network(text, strict=False)
        if "/" not in text:
            raise NetmaskValueError(text)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        if ":" in text:
            raise Unsupported("IPv6 networks are not supported", hint="use IPv4") from error
        raise InvalidInput(
            f"Invalid subnet {text} : invalid CIDR address: {text}", field="subnet"
        ) from error
    if text.partition("/")[0] != str(subnet.network_address):
        raise InvalidInput(f"invalid subnet {text}: it should be {subnet}", field="subnet")
    if subnet.prefixlen > 30:
        raise InvalidInput(
            "failed to allocate gateway (): No available addresses on this pool", field="subnet"
        )
    return subnet


def gateway_of(text: str, subnet: IPv4Network) -> IPv4Address:
    """The first host address where none is asked for. Raises InvalidInput."""
    if not text:
        return subnet.network_address + 1
    try:
        gateway = IPv4Address(text.partition("/")[0])
    except AddressValueError as error:
        raise InvalidInput(
            f"invalid gateway address {text} in Ipam configuration", field="gateway"
        ) from error
    if gateway not in subnet:
        raise InvalidInput(
            f"failed to allocate gateway ({text}): Requested address is out of range",
            field="gateway",
        )
    if gateway in (subnet.network_address, subnet.broadcast_address):
        raise InvalidInput(
            f"failed to allocate gateway ({text}): Address already in use", field="gateway"
        )
    return gateway


def range_of(text: str, subnet: IPv4Network) -> str:
    """Empty for the whole subnet. Raises InvalidInput."""
    if not text:
        return ""
    try:
        found = IPv4Network(text, strict=False)
    except ValueError as error:
        raise InvalidInput(f"invalid ip-range {text}", field="ip_range") from error
    if not found.subnet_of(subnet):
        raise InvalidInput(
            f"invalid ip-range {text}: it should be within {subnet}", field="ip_range"
        )
    return str(found)


def options_of(request: NetworkRequest, subnet: IPv4Network) -> dict[str, Any]:
    """What inspect shows again, and no column holds. Raises InvalidInput for a reserved address
    that is not in the subnet."""
    for name, text in request.reserved.items():
        try:
            within = IPv4Address(text) in subnet
        except AddressValueError:
            within = False
        if not within:
            raise InvalidInput(
                f"no matching subnet for aux-address {text}", field="reserved", name=name
            )
    asked = {
        "Subnet": request.subnet,
        "IPRange": request.ip_range,
        "Gateway": request.gateway,
        "AuxiliaryAddresses": dict(request.reserved),
    }
    return {
        "driver": dict(request.options),
        "ipam": {name: value for name, value in asked.items() if value},
        # null and {} are told apart by who asked: docker-py's are the one, the CLI's the other.
        "ipam_options": None if request.ipam_options is None else dict(request.ipam_options),
    }
