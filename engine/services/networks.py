"""Networks as people ask for them: create, find, connect, disconnect, remove, prune.

A network is a row until a container first starts on it; bridges, interfaces and routes are made
and taken away by `engine.services.work.networks`. `host` and `none` have no rows: see `BUILTIN`.
The order and the words of checks are moby's (libnetwork, daemon/network.go).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from engine import publish
from engine.ceiling import Ceiling
from engine.containers.options import EndpointSettings
from engine.errors import Forbidden, InvalidInput, NameTaken, NotFound, WrongState
from engine.events import Kind
from engine.models import Container, Endpoint, Namespace, Network, Node, Operation
from engine.network import routes
from engine.network.addresses import next_subnet
from engine.network.spec import is_resolvable
from engine.services import addresses, events, labels, namespaces, network_requests, operations
from engine.services.network_requests import DRIVER as DRIVER
from engine.services.network_requests import MTU as MTU
from engine.services.network_requests import NetworkRequest as NetworkRequest

_OWN_NAMESPACE = "container sharing network namespace with another container or host cannot be "
_OPENING = (Operation.Kind.CONTAINER_START, Operation.Kind.CONTAINER_RESTART)
State = Container.State


@dataclass(frozen=True, slots=True)
class Builtin:
    """A network that is the same everywhere and no row: the host's own, and none at all."""

    namespace: Namespace
    name: str
    driver: str
    uid: str

    @property
    def created_at(self) -> datetime:
        return self.namespace.created_at

    @classmethod
    def of(cls, namespace: Namespace, name: str) -> Builtin:
        """Its id stays the same for a namespace."""
        driver = {"none": "null"}.get(name, name)
        return cls(namespace, name, driver, builtin_uid(namespace.pk, name))


BUILTIN = ("host", "none")


def builtin_uid(namespace_id: int, name: str) -> str:
    """The id of a namespace's `host` or `none`."""
    text = f"{settings.ENGINE.instance} {namespace_id} {name}"
    return hashlib.sha256(text.encode()).hexdigest()


def network_create(namespace: Namespace, request: NetworkRequest) -> Network:
    """The row; its bridge appears when a container first starts on it.

    Raises InvalidInput (with `field`), NameTaken, Forbidden (a name of ours, overlapping
    addresses), PolicyDenied (addresses beyond the ceiling), NotFound (another driver),
    Unsupported."""
    network_requests.check(request)
    wanted = network_requests.subnet_of(request.subnet) if request.subnet else None
    if wanted is None and (request.gateway or request.ip_range or request.reserved):
        raise InvalidInput("Invalid subnet  : invalid CIDR address: ", field="subnet")
    if wanted is not None:
        Ceiling.load(settings.ENGINE.home / "ceiling.json").check_subnet(wanted)
    routed = routes.host_subnets()
    with transaction.atomic():
        # One at a time on this machine: networks of all namespaces share its addresses.
        Node.objects.select_for_update(no_key=True).get(pk=namespaces.node_local().pk)
        if Network.objects.filter(namespace=namespace, name=request.name).exists():
            raise NameTaken(
                f"network with name {request.name} already exists", field="name", name=request.name
            )
        rows = list(Network.objects.values_list("subnet", "bridge"))
        taken = [*(IPv4Network(subnet) for subnet, _ in rows), *routed]
        if wanted is None:
            subnet = next_subnet(settings.ENGINE.address_pool, taken)
        else:
            subnet = wanted
            if any(subnet.overlaps(other) for other in taken):
                raise Forbidden(
                    "Pool overlaps with other one on this address space", field="subnet"
                )
        network = Network.objects.create(
            namespace=namespace,
            name=request.name,
            subnet=str(subnet),
            gateway=str(network_requests.gateway_of(request.gateway, subnet)),
            bridge=_bridge({bridge for _, bridge in rows}),
            ip_range=network_requests.range_of(request.ip_range, subnet),
            internal=request.internal,
            attachable=request.attachable,
            labels=dict(request.labels),
            options=network_requests.options_of(request, subnet),
        )
        event(network, "create")
        publish.changed(namespace.pk, Kind.NETWORK, network.pk)
    return network


def find_network(namespace: Namespace, name_or_id: str) -> Network:
    """By name, id, or a beginning of the id. Raises NotFound; of `host` and `none` too, which are
    no rows: ask `find_any`."""
    found = find_any(namespace, name_or_id)
    if isinstance(found, Builtin):
        raise _not_found(name_or_id)
    return found


def find_any(namespace: Namespace, name_or_id: str) -> Network | Builtin:
    """Raises NotFound, InvalidInput for a beginning of several ids."""
    if not name_or_id:
        raise _not_found(name_or_id)
    if name_or_id == namespaces.DEFAULT_NETWORK:
        return namespaces.network_default(namespace)
    rows = Network.objects.filter(namespace=namespace).filter(
        Q(name=name_or_id) | Q(uid__startswith=name_or_id)
    )
    every: list[Network | Builtin] = [Builtin.of(namespace, name) for name in BUILTIN]
    every += rows[:3]
    # A full id goes before a name that looks like one.
    for exact in (
        [one for one in every if one.uid == name_or_id],
        [one for one in every if one.name == name_or_id],
    ):
        if exact:
            return exact[0]
    fits = [one for one in every if one.uid.startswith(name_or_id)]
    if len(fits) > 1:
        raise InvalidInput(
            f"network {name_or_id} is ambiguous ({len(fits)} matches found based on ID prefix)",
            field="network",
        )
    if not fits:
        raise _not_found(name_or_id)
    return fits[0]


def container_connect(
    container: Container,
    network: Network | Builtin,
    actor: str,
    wishes: EndpointSettings | None = None,
) -> Operation:
    """Put a container, running or not, on one more network.

    Raises InvalidInput, Forbidden (it is there already, an address somebody has), PolicyDenied."""
    wishes = wishes or EndpointSettings()
    _check_mode(container, network)
    assert isinstance(network, Network)
    if container.state in (State.REMOVING, State.DEAD):
        raise WrongState(f"container {container.name} is being removed", name=container.name)
    if container.is_running and network.endpoints.filter(container=container).exists():
        raise already_there(container, network)
    addresses.check(network, wishes)
    return _submit(
        Operation.Kind.CONTAINER_CONNECT,
        container,
        network,
        actor,
        aliases=list(wishes.aliases),
        ipv4=wishes.ipv4,
        mac=wishes.mac,
        links=list(wishes.links),
        link_local=list(wishes.link_local),
        driver_options=dict(wishes.driver_options),
    )


def container_disconnect(
    container: Container, network: Network | Builtin, actor: str, *, force: bool = False
) -> Operation:
    """Take a container, running or not, off a network. Raises InvalidInput, NotFound when it is
    not on it."""
    if isinstance(network, Builtin):
        if network.name == "host":
            raise InvalidInput(_HOST_NETWORK)
        raise not_there(container, network.name)
    if not network.endpoints.filter(container=container).exists():
        raise not_there(container, network.name)
    return _submit(Operation.Kind.CONTAINER_DISCONNECT, container, network, actor, force=force)


def network_remove(network: Network | Builtin, actor: str) -> Operation:
    """Raises Forbidden for a pre-defined network, and while a container on it runs."""
    if isinstance(network, Builtin) or is_default(network):
        raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
    must_be_free(network)
    return operations.submit(
        Operation.Kind.NETWORK_REMOVE,
        network.namespace,
        actor=actor,
        target=str(network.pk),
        args={"name": network.name},
    )


def must_be_free(network: Network) -> None:
    """Raises Forbidden while somebody on it runs, or is about to."""
    if _in_use(network):
        raise Forbidden(
            f"error while removing network: network {network.name} id {network.uid} has active "
            "endpoints",
            network=network.name,
        )


def _in_use(network: Network) -> bool:
    return any(is_active(endpoint) for endpoint in network.endpoints.select_related("container"))


def is_active(endpoint: Endpoint) -> bool:
    """Its container runs or is about to; a build's is always in use."""
    container = endpoint.container
    if container is None or container.is_running or container.state == State.RESTARTING:
        return True
    starts = Operation.objects.open().filter(target=str(container.pk), kind__in=_OPENING)
    return starts.exists()


def networks_prune(
    namespace: Namespace,
    actor: str,
    *,
    until: datetime | None = None,
    label: Iterable[str] = (),
    label_not: Iterable[str] = (),
) -> Operation:
    """Remove user-defined networks that no running container is on, of those made before `until`;
    `label` and `label_not` are `key` or `key=value`. Its result: {"networks": [names]}."""
    return operations.submit(
        Operation.Kind.NETWORK_PRUNE,
        namespace,
        actor=actor,
        args={
            "until": until.isoformat() if until else "",
            "label": list(label),
            "label_not": list(label_not),
        },
    )


def prunable(
    namespace: Namespace,
    *,
    until: datetime | None = None,
    label: Iterable[str] = (),
    label_not: Iterable[str] = (),
) -> list[Network]:
    """What `networks_prune` would remove now: stopped containers do not keep one."""
    found = Network.objects.filter(namespace=namespace).exclude(name=namespaces.DEFAULT_NETWORK)
    if until is not None:
        found = found.filter(created_at__lt=until)
    return [
        network
        for network in found.order_by("created_at", "pk")
        if labels.match(network.labels, label, label_not) and not _in_use(network)
    ]


def is_default(network: Network) -> bool:
    """The one every namespace has from the start."""
    return network.name == namespaces.DEFAULT_NETWORK


def driver_options(network: Network) -> dict[str, str]:
    """As they were given."""
    return dict(network.options.get("driver") or {})


def ipam_config(network: Network) -> dict[str, Any]:
    """{"Subnet", "Gateway", "IPRange", "AuxiliaryAddresses"}: what was asked for, or chosen."""
    kept: dict[str, Any] | None = network.options.get("ipam")
    return dict(kept) if kept else {"Subnet": network.subnet, "Gateway": network.gateway}


def ipam_options(network: Network) -> dict[str, str] | None:
    found: dict[str, str] | None = network.options.get("ipam_options")
    return found


def mtu(network: Network) -> int:
    """0 for the kernel's own."""
    return int(driver_options(network).get(MTU) or 0)


def gateway_network(found: Iterable[Network]) -> Network | None:
    """Of a container's networks, the one its default route leads to: the first by name that has
    a way out (libnetwork, Endpoint.Less)."""
    return min(
        (network for network in found if not network.internal),
        key=lambda network: network.name,
        default=None,
    )


def event(network: Network, action: str, container: Container | None = None) -> None:
    """Call it in the transaction of the change."""
    attributes = {"name": network.name, "type": DRIVER}
    if container is not None:
        attributes["container"] = container.uid
    events.record(network.namespace_id, "network", action, network.uid, attributes)


def already_there(container: Container, network: Network) -> Forbidden:
    """What to raise."""
    return Forbidden(
        f"endpoint with name {container.name} already exists in network {network.name}",
        container=container.name,
        network=network.name,
    )


def not_there(container: Container, network: str) -> Forbidden:
    """What to raise."""
    return Forbidden(
        f"container {container.uid} is not connected to network {network}",
        container=container.name,
        network=network,
    )


_HOST_NETWORK = "container cannot be disconnected from host network or connected to host network"


def _submit(
    kind: Operation.Kind, container: Container, network: Network, actor: str, **args: Any
) -> Operation:
    return operations.submit(
        kind,
        container.namespace,
        actor=actor,
        target=str(container.pk),
        args={"name": container.name, "network": network.pk, "network_name": network.name, **args},
    )


def _check_mode(container: Container, network: Network | Builtin) -> None:
    """moby daemon/container_operations.go updateNetworkSettings."""
    mode = str(container.settings.get("network_mode", ""))
    if isinstance(network, Builtin) and network.name == "host":
        raise InvalidInput(_HOST_NETWORK)
    if mode == "host" or mode.startswith("container:"):
        raise InvalidInput(f"{_OWN_NAMESPACE}connected to any other network")
    if mode == "none" or isinstance(network, Builtin):
        raise InvalidInput(
            "container cannot be connected to multiple networks with one of the networks in "
            "private (none) mode"
        )


def _not_found(name: str) -> NotFound:
    return NotFound(
        f"no such network: {name}",
        hint="choose bridge, none or a network of this team",
        kind="network",
        name=name,
        field="network",
    )


def _bridge(taken: set[str]) -> str:
    """Not numbered by its addresses, as the namespaces' own are: they may lie anywhere."""
    number = 0
    while (name := f"{settings.ENGINE.bridge_prefix}u{number:x}") in taken:
        number += 1
    return name


def names_of(container: Container, endpoint: Endpoint) -> tuple[str, ...]:
    """What the container is called on a network: its name, its aliases, its short id and its host
    name. A container may be called what no resolver asks for (`web-`, 64 letters): as with Docker
    it then goes without. Aliases were looked at when they were asked for."""
    name, hostname = container.name, str(container.settings.get("hostname", ""))
    wanted = (
        name if is_resolvable(name) else "",
        *endpoint.names,
        container.short_id,
        hostname if is_resolvable(hostname) else "",
    )
    return tuple(dict.fromkeys(filter(None, wanted)))
