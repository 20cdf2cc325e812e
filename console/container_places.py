"""Where a container is mounted and connected: its volumes, folders and networks, for its pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.urls import reverse
from django.utils.translation import gettext

from console.container_facts import Fact
from engine.containers.options import Mount
from engine.containers.settings import ContainerSettings
from engine.models import Container, Network, VolumeUse
from engine.services import links
from engine.services.networks import names_of


@dataclass(frozen=True, slots=True)
class Place:
    """Something mounted. `href` is the volume's page, "" for what is none."""

    kind: str
    source: str
    href: str
    target: str
    access: str
    more: str


@dataclass(frozen=True, slots=True)
class Joined:
    """A network it is on. `names` are what the others call it there."""

    pk: int
    name: str
    href: str
    address: str
    gateway: str
    mac: str
    names: tuple[str, ...]
    internal: bool


def places(container: Container, settings: ContainerSettings) -> list[Place]:
    uses = {
        use.destination: use for use in container.volume_uses.select_related("volume", "container")
    }
    team = container.namespace.team.slug
    found = [
        _place(team, mount, uses.pop(mount.destination, None)) for mount in settings.host.mounts
    ]
    found += [_volume(team, use, "") for use in uses.values()]
    for target, words in settings.host.tmpfs.items():
        found.append(_memory(target, words))
    return sorted(found, key=lambda one: one.target)


def _place(team: str, mount: Mount, use: VolumeUse | None) -> Place:
    if mount.type == "tmpfs":
        return _memory(mount.destination, ",".join(mount.options))
    more = ",".join(filter(None, (mount.propagation, *mount.options)))
    if use is not None:
        return _volume(team, use, more)
    return Place(
        kind=gettext("folder of the machine") if mount.type == "bind" else gettext("volume"),
        source=mount.source or mount.name,
        href="",
        target=mount.destination,
        access=_access(mount.read_only),
        more=more,
    )


def _volume(team: str, use: VolumeUse, more: str) -> Place:
    volume = use.volume
    return Place(
        kind=gettext("anonymous volume") if volume.anonymous else gettext("volume"),
        source=volume.name[:12] if volume.anonymous else volume.name,
        href=reverse("volume", args=[team, volume.name]),
        target=use.destination,
        access=_access(use.read_only),
        more=more,
    )


def _memory(target: str, words: str) -> Place:
    read_only = "ro" in words.split(",")
    return Place(gettext("in memory (tmpfs)"), "", "", target, _access(read_only), words)


def _access(read_only: bool) -> str:
    return gettext("read-only") if read_only else gettext("read and write")


def joined(container: Container) -> list[Joined]:
    """The networks it is on, running or not."""
    team = container.namespace.team.slug
    found = container.endpoints.select_related("network").order_by("pk")
    return [
        Joined(
            pk=endpoint.network.pk,
            name=endpoint.network.name,
            href=reverse("network", args=[team, endpoint.network.uid[:12]]),
            address=endpoint.address or "–",
            gateway=endpoint.network.gateway,
            mac=endpoint.mac,
            names=names_of(container, endpoint),
            internal=endpoint.network.internal,
        )
        for endpoint in found
    ]


def joinable(container: Container) -> list[Network]:
    """Those it could be connected to: none where it has no network of its own."""
    if network_words(container.settings.get("network_mode", "")):
        return []
    found = Network.objects.filter(namespace=container.namespace)
    return list(found.exclude(endpoints__container=container).order_by("name"))


def network_words(mode: str) -> str:
    """Why there is nothing to connect; "" for a container with networks of its own."""
    if mode == "none":
        return gettext("It was made without a network: only it can reach itself.")
    if mode == "host":
        return gettext("It uses the machine's own network, with all its addresses and ports.")
    if mode.startswith("container:"):
        name = mode.removeprefix("container:")[:12]
        return gettext("It uses the network of another container: %(name)s.") % {"name": name}
    return ""


def network_facts(container: Container, settings: ContainerSettings) -> list[Fact]:
    """What of its networking is not a network: names it was given, name servers, ports that are
    only documented."""
    return list(_network_facts(container, settings))


def _network_facts(container: Container, settings: ContainerSettings) -> Iterator[Fact]:
    host = settings.host
    published = {f"{port.container_port}/{port.protocol}" for port in container.ports.all()}
    documented = [port for port in settings.exposed_ports if port not in published]
    for term, values in (
        (gettext("Documented ports"), documented),
        (gettext("Name servers"), host.dns),
        (gettext("Search domains"), host.dns_search),
        (gettext("Resolver options"), host.dns_options),
        (gettext("Further hosts"), host.extra_hosts),
        (
            gettext("Links"),
            [f"{one.name} → {alias}" for alias, one in _linked(container, host.links)],
        ),
    ):
        if values:
            yield Fact(term, tuple(values), code=True)


def _linked(container: Container, asked: tuple[str, ...]) -> list[tuple[str, Container]]:
    return links.targets(container, asked) if asked else []
