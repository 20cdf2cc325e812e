"""Addresses on networks: which one somebody gets, and whether one may be asked for."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any

from django.db import IntegrityError, transaction

from engine.containers.options import EndpointSettings
from engine.errors import Forbidden, InvalidInput, NameTaken
from engine.models import Container, Endpoint, Network
from engine.network.addresses import mac_for, next_address
from engine.network.spec import is_resolvable

DEFAULT_NETWORK = "bridge"
_LINK = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*(:[a-zA-Z0-9][a-zA-Z0-9_.-]*)?")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


def check(network: Network, wishes: EndpointSettings) -> None:
    """Raises InvalidInput, Forbidden, in moby's words."""
    if network.name == DEFAULT_NETWORK:
        if wishes.aliases:
            raise InvalidInput(
                "network-scoped alias is supported only for containers in user defined networks",
                field="aliases",
            )
        if wishes.ipv4:
            raise InvalidInput(
                "user specified IP address is supported on user defined networks only",
                field="ipv4",
            )
    for alias in wishes.aliases:
        if not is_resolvable(alias):
            raise InvalidInput(
                f"not a name to resolve: {alias}",
                hint="labels of letters, digits, _ and inner -, with dots between",
                field="aliases",
            )
    if wishes.mac and not _MAC.fullmatch(wishes.mac):
        raise InvalidInput(f"invalid MAC address: {wishes.mac}", field="mac")
    if wishes.ipv4:
        _check_address(network, wishes.ipv4)
    for text in wishes.link_local:
        if not _is_link_local(text):
            raise InvalidInput(f"invalid link-local IP address: {text}", field="link_local")
    for link in wishes.links:
        if not _LINK.fullmatch(link):
            raise InvalidInput(f"bad format for links: {link}", field="links")


def take(
    network: Network,
    *,
    container: Container | None = None,
    owner: str = "",
    wishes: EndpointSettings | None = None,
) -> Endpoint:
    """A place with the address asked for, or with none: `give` finds one when it is needed, for a
    thousand stopped containers are not to fill a network. Raises Forbidden when the one asked for
    is another's, NameTaken when the container is there already."""
    wishes = wishes or EndpointSettings()
    check(network, wishes)
    mac = wishes.mac.lower().replace("-", ":")
    try:
        with transaction.atomic():
            return Endpoint.objects.create(
                network=network,
                container=container,
                owner=owner,
                address=wishes.ipv4 or None,
                mac=mac or (mac_for(IPv4Address(wishes.ipv4)) if wishes.ipv4 else ""),
                names=list(dict.fromkeys(wishes.aliases)),
                fixed=bool(wishes.ipv4),
            )
    except IntegrityError as error:
        mine = network.endpoints.filter(container=container)
        if container is not None and mine.exists():
            raise NameTaken(
                f"endpoint with name {container.name} already exists in network {network.name}"
            ) from error
        raise Forbidden("Address already in use", field="ipv4") from error


def give(endpoint: Endpoint) -> Endpoint:
    """The lowest free address of the network's range for a place that has none. Raises Conflict
    when there is none.

    Two takers at once may choose the same; the constraint lets one win, the other looks again."""
    while endpoint.address is None:
        address = _free(endpoint.network)
        try:
            with transaction.atomic():
                mac = endpoint.mac or mac_for(address)
                Endpoint.objects.filter(pk=endpoint.pk).update(address=str(address), mac=mac)
        except IntegrityError:
            continue
        endpoint.address, endpoint.mac = str(address), mac
    return endpoint


def give_back(container: Container) -> None:
    """Addresses that were not asked for may be others' from here on: nothing of the container is
    left on its networks. Its next start gets others, as with Docker."""
    for endpoint in container.endpoints.filter(fixed=False).exclude(address=None):
        made = endpoint.mac == mac_for(IPv4Address(endpoint.address))
        Endpoint.objects.filter(pk=endpoint.pk).update(
            address=None, mac="" if made else endpoint.mac
        )


def wishes_of(container: Container, network: Network) -> dict[str, Any]:
    """What it has asked for on a network, an EndpointSettings' JSON; {} for nothing."""
    kept: dict[str, dict[str, Any]] = container.settings.get("endpoints") or {}
    also = kept.get("default") if network.name == DEFAULT_NETWORK else None
    return kept.get(network.name) or also or {}


def _free(network: Network) -> IPv4Address:
    taken = list(network.endpoints.exclude(address=None).values_list("address", flat=True))
    reserved = (network.options.get("ipam") or {}).get("AuxiliaryAddresses") or {}
    return next_address(
        IPv4Network(network.subnet),
        [IPv4Address(address) for address in (*taken, *reserved.values())],
        gateway=IPv4Address(network.gateway),
        within=IPv4Network(network.ip_range) if network.ip_range else None,
    )


def _is_link_local(text: str) -> bool:
    try:
        return IPv4Address(text).is_link_local
    except AddressValueError:
        return False


def _check_address(network: Network, text: str) -> None:
    try:
        address = IPv4Address(text)
    except AddressValueError as error:
        raise InvalidInput(f"invalid IPv4 address: {text}", field="ipv4") from error
    if not (network.options.get("ipam") or {}).get("Subnet"):
        raise InvalidInput(
            "user specified IP address is supported only when connecting to networks with user "
            "configured subnets",
            field="ipv4",
        )
    subnet = IPv4Network(network.subnet)
    if address not in subnet:
        raise InvalidInput(
            f"Invalid address {text}: It does not belong to any of this network's subnets",
            field="ipv4",
        )
    ends = (subnet.network_address, subnet.broadcast_address, IPv4Address(network.gateway))
    if address in ends:
        raise Forbidden("Address already in use", field="ipv4")
