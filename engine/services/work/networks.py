"""What happens on the machine with networks: a container's attachments at its start, connect and
disconnect while it runs, removal.

A container's networks change only under its directory's lock, as its state does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from django.db import transaction

from engine import publish
from engine.ceiling import Ceiling
from engine.containers.codec import decode, encode
from engine.containers.layout import ContainerDir
from engine.containers.options import EndpointSettings
from engine.errors import Forbidden, InvalidInput, NotFound, PolicyDenied
from engine.events import Kind
from engine.models import Container, Endpoint, Network, Operation, Port
from engine.network.spec import Attachment, NetworkSpec, PublishedPort, asked_servers
from engine.services import addresses, namespaces, networks
from engine.services.lookup import load
from engine.services.work import links
from engine.services.work.host import host

# In a container's settings: places on networks that were removed while it was stopped.
_LOST = "lost_networks"


def handle(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    if operation.kind == Operation.Kind.NETWORK_PRUNE:
        return _prune(operation, cancelled)
    network = Network.objects.filter(
        pk=int(operation.target), namespace=operation.namespace
    ).first()
    if network is None:
        if operation.attempt > 1:
            return {}  # an attempt before this one had done it when its worker was lost
        raise _gone(operation.args)
    _remove(network)
    return {}


def network_spec(network: Network) -> NetworkSpec:
    """The row's value. Raises PolicyDenied for addresses that are neither this home's nor within
    root's ceiling: a bridge over them would take the host's own traffic. Networks made under an
    earlier ceiling stay."""
    config = host().config
    spec = NetworkSpec(
        id=f"n{network.pk}",
        name=network.name,
        subnet=IPv4Network(network.subnet),
        gateway=IPv4Address(network.gateway),
        bridge=network.bridge,
        internal=network.internal,
        mtu=networks.mtu(network),
    )
    if not spec.subnet.subnet_of(config.address_pool) and host().network.recorded(spec.id) != spec:
        Ceiling.load(config.home / "ceiling.json").check_subnet(spec.subnet)
    return spec


def on(container: Container) -> list[Endpoint]:
    """Its places on networks, the first one its network mode's."""
    return list(container.endpoints.select_related("network").order_by("pk"))


def places(container: Container) -> list[Endpoint]:
    """Those of `on` for a start, each with an address.

    Raises NotFound when a network of its was removed while it was stopped and none of that name
    has come since, Conflict where a network has no address left."""
    _take_lost(container)
    return [addresses.give(row) for row in on(container)]


def attachments(container: Container, rows: Sequence[Endpoint]) -> list[Attachment]:
    """What a start needs of its `places`; the default route is one's."""
    chosen = networks.gateway_network(row.network for row in rows)
    return [
        _attachment(container, row, f"eth{number}", gateway=row.network == chosen)
        for number, row in enumerate(rows)
    ]


def joined(container: Container, rows: Iterable[Endpoint]) -> None:
    """Events of a start. Call it in the transaction that writes it down."""
    for endpoint in rows:
        networks.event(endpoint.network, "connect", container)


def left(container: Container) -> None:
    """Events of an end. Call it in the transaction that writes it down."""
    for endpoint in on(container):
        networks.event(endpoint.network, "disconnect", container)


def connect(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    """CONTAINER_CONNECT. A running container has its interface when this ends, and the others of
    the network find it by its names."""
    wishes = decode(EndpointSettings, args)
    with ContainerDir(host().config, container.uid).lock():
        container = load(pk=container.pk)
        _connect(container, args, wishes)
    if container.is_running:
        links.follow(container)
    return {}


def _connect(container: Container, args: dict[str, Any], wishes: EndpointSettings) -> None:
    """The caller holds the lock."""
    network = _network(container, args)
    endpoint = network.endpoints.filter(container=container).first()
    made = endpoint is None
    if endpoint is None:
        with transaction.atomic():
            namespaces.lock(container.namespace)
            endpoint = addresses.take(network, container=container, wishes=wishes)
            _forget_lost(container, network.name)
            _keep(container, network, wishes)
            if container.is_running:
                networks.event(network, "connect", container)
            _changed(container, network)
    elif not container.is_running and wishes != EndpointSettings():
        # As moby: a stopped container's wishes are the last that were told.
        with transaction.atomic():
            endpoint.delete()
            endpoint = addresses.take(network, container=container, wishes=wishes)
            _keep(container, network, wishes)
            _changed(container, network)
    if container.is_running:
        try:
            _attach(container, addresses.give(endpoint))
        except BaseException:
            if made:
                with transaction.atomic():
                    endpoint.delete()
                    _keep(container, network, EndpointSettings())
                    _changed(container, network)
            raise
        if wishes.links:
            links.refresh(container)


def disconnect(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    """CONTAINER_DISCONNECT."""
    with ContainerDir(host().config, container.uid).lock():
        container = load(pk=container.pk)
        network = _network(container, args)
        endpoint = network.endpoints.filter(container=container).first()
        if endpoint is None:
            raise networks.not_there(container, network.name)
        if container.is_running:
            host().network.detach(container.uid, f"n{network.pk}")
        linked = bool(addresses.wishes_of(container, network).get("links"))
        with transaction.atomic():
            endpoint.delete()
            _keep(container, network, EndpointSettings())
            if container.is_running:
                networks.event(network, "disconnect", container)
            _changed(container, network)
        if container.is_running:
            _turn(container)
            if linked:
                links.refresh(container)
    return {}


def _keep(container: Container, network: Network, wishes: EndpointSettings) -> None:
    """What inspect shows again, and the next start needs."""
    kept = dict(container.settings.get("endpoints") or {})
    if networks.is_default(network):
        kept.pop("default", None)
    kept.pop(network.name, None)
    if wishes != EndpointSettings():
        kept[network.name] = encode(wishes, sparse=True)
    container.settings = {**container.settings, "endpoints": kept}
    Container.objects.filter(pk=container.pk).update(settings=container.settings)


def _network(container: Container, args: dict[str, Any]) -> Network:
    found = Network.objects.filter(pk=int(args["network"]), namespace=container.namespace).first()
    if found is None:
        raise _gone({"name": args.get("network_name", "")})
    return found


def _gone(args: dict[str, Any]) -> NotFound:
    name = str(args.get("name", ""))
    return NotFound(f"no such network: {name}", kind="network", name=name)


def _changed(container: Container, network: Network) -> None:
    publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)
    publish.changed(container.namespace_id, Kind.NETWORK, network.pk)


def _attachment(
    container: Container, endpoint: Endpoint, interface: str, *, gateway: bool
) -> Attachment:
    return Attachment(
        network=network_spec(endpoint.network),
        address=IPv4Address(str(endpoint.address)),
        mac=endpoint.mac,
        interface=interface,
        names=networks.names_of(container, endpoint),
        gateway=gateway,
        dns=asked_servers((container.settings.get("host") or {}).get("dns", ())),
        link_local=tuple(
            map(IPv4Address, addresses.wishes_of(container, endpoint.network).get("link_local", ()))
        ),
        links=links.asked_by_name(container, endpoint.network),
    )


def _attach(container: Container, endpoint: Endpoint) -> None:
    """One more interface for a running container. Idempotent."""
    there = host().network.attached(container.uid)
    used = {one.interface for one in there}
    mine = next((one for one in there if one.network.id == f"n{endpoint.network_id}"), None)
    number = 0
    while f"eth{number}" in used:
        number += 1
    interface = mine.interface if mine else f"eth{number}"
    pid = _pid(container)
    attachment = _attachment(container, endpoint, interface, gateway=False)
    host().network.attach(attachment, container.uid, pid)
    try:
        _turn(container)
    except BaseException:
        host().network.detach(container.uid, attachment.network.id)
        raise


def _turn(container: Container) -> None:
    """After its networks changed: the default route, the published ports, hosts and resolv.conf
    are of those it has now."""
    pid = _pid(container)
    there = host().network.attached(container.uid)
    rows = on(container)
    chosen = networks.gateway_network(row.network for row in rows)
    chosen_id = f"n{chosen.pk}" if chosen else None
    turned = [replace(one, gateway=one.network.id == chosen_id) for one in there]
    if turned != list(there) or not any(one.gateway for one in turned):
        host().network.route(container.uid, pid, chosen_id)
    ports = _published(container)
    if ports:
        _turn_ports(container, turned, ports)
    turned.sort(key=lambda one: one.interface)
    host().containers.write_etc(container.uid, turned)


def _turn_ports(
    container: Container, there: Sequence[Attachment], ports: Sequence[PublishedPort]
) -> None:
    address = next((one.address for one in there if one.gateway), None)
    if address is None and there:
        address = there[0].address
    if address is None:
        host().network.unpublish(container.uid)
    else:
        host().network.publish(container.uid, address, ports)


def _published(container: Container) -> list[PublishedPort]:
    return [
        PublishedPort(port.host_ip, port.published_port, port.container_port, _protocol(port))
        for port in container.ports.exclude(published_port=None)
        if port.published_port is not None
    ]


def _protocol(port: Port) -> Any:
    return port.protocol  # PublishedPort refuses what is neither tcp nor udp


def _pid(container: Container) -> int:
    """Of its first process, as the machine knows it and not as a row says."""
    observed = host().containers.observe(container.uid)
    if not observed.running or observed.started is None:
        raise Forbidden(f"container {container.uid} is not running", container=container.name)
    return observed.started.init_pid


def _remove(network: Network) -> None:
    """Raises Forbidden."""
    if networks.is_default(network):
        raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
    try:
        spec = network_spec(network)
    except (PolicyDenied, InvalidInput):
        spec = None  # it was never made
    with transaction.atomic():
        namespaces.lock(network.namespace)
        networks.must_be_free(network)
        _remember(network)
        networks.event(network, "destroy")
        publish.changed(network.namespace_id, Kind.NETWORK, network.pk)
        # Nobody starts on it from here on. Killed before the end, `sweep` takes the bridge away.
        network.delete()
    if spec is not None and host().network.recorded(spec.id) is not None:
        host().network.remove(spec)


def _remember(network: Network) -> None:
    """Stopped containers on it: they are told at their next start that it is gone."""
    for endpoint in network.endpoints.select_related("container"):
        container = endpoint.container
        if container is None:
            continue
        place = {
            "network": network.name,
            "names": endpoint.names,
            "address": endpoint.address if endpoint.fixed else "",
        }
        lost = [*container.settings.get(_LOST, ()), place]
        Container.objects.filter(pk=container.pk).update(
            settings={**container.settings, _LOST: lost}
        )
        publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)


def _take_lost(container: Container) -> None:
    """A network of the same name serves as well, as with Docker. Raises NotFound without one."""
    for place in list(container.settings.get(_LOST, ())):
        name = place["network"]
        network = Network.objects.filter(namespace=container.namespace, name=name).first()
        if network is None:
            raise NotFound(f"no such network: {name}", kind="network", name=name)
        wishes = EndpointSettings(aliases=tuple(place["names"]), ipv4=place["address"])
        with transaction.atomic():
            if not network.endpoints.filter(container=container).exists():
                addresses.take(network, container=container, wishes=wishes)
            _forget_lost(container, name)


def _forget_lost(container: Container, name: str) -> None:
    lost = [place for place in container.settings.get(_LOST, ()) if place["network"] != name]
    if len(lost) != len(container.settings.get(_LOST, ())):
        container.settings = {**container.settings, _LOST: lost}
        Container.objects.filter(pk=container.pk).update(settings=container.settings)


def _prune(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    args = operation.args
    found = networks.prunable(
        operation.namespace,
        until=datetime.fromisoformat(args["until"]) if args.get("until") else None,
        label=args.get("label", ()),
        label_not=args.get("label_not", ()),
    )
    names = []
    for network in found:
        if cancelled.is_set():
            break
        try:
            _remove(network)
        except Forbidden:
            continue  # a container has started meanwhile
        names.append(network.name)
    return {"networks": names}


def sweep() -> list[str]:
    """For reconcile: bridges of networks whose removal was interrupted."""
    changed = []
    for spec in host().network.networks():
        key = spec.id.removeprefix("n")
        if key.isdecimal() and not Network.objects.filter(pk=int(key)).exists():
            host().network.remove(spec)
            changed.append(f"network {spec.name} without a row removed")
    return changed
