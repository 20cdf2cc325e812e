"""What a linked container is told of the others: lines of its /etc/hosts, variables, and names.

A link on the default network (`--link`) wants its target to run at the start, and gives moby's old
variables as well. One on a network of one's own is an alias for whoever comes by the name, sooner
or later: it follows when such a one starts or connects, and the network's resolver knows it too
(engine.network.aliases, which follows by itself). Either is seen by the linking container alone,
and told anew when a target starts again, for it may have another address then.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace

from django.db.models import Q

from engine.containers.layout import ContainerDir
from engine.containers.settings import ContainerSettings
from engine.errors import QuaysideError, WrongState
from engine.models import Container, Network
from engine.network.spec import is_resolvable
from engine.services import addresses, links, networks
from engine.services.work.host import host

logger = logging.getLogger(__name__)

# Of the target's variables those that say nothing to others (moby links.ToEnv).
_OWN = ("HOME", "PATH")
_UID = re.compile(r"[0-9a-f]{64}")


def check(container: Container) -> None:
    """Before a start: raises WrongState for a target that does not run."""
    kept = (container.settings.get("host") or {}).get("links") or ()
    for alias, target in links.targets(container, kept):
        if not target.is_running:
            raise WrongState(
                f"Cannot link to a non running container: /{target.name} AS "
                f"/{container.name}/{alias}",
                name=target.name,
            )


def told(container: Container, settings: ContainerSettings) -> ContainerSettings:
    """The settings as the machine is to have them, with what the links add."""
    hosts: list[str] = []
    env: list[str] = []
    for alias, target in links.targets(container, settings.host.links):
        address = _default_address(target)
        if address:
            hostname = str(target.settings.get("hostname", ""))
            names = dict.fromkeys(filter(None, (alias, hostname, target.name)))
            hosts.append(f"{' '.join(names)}:{address}")
            env += _variables(container, alias, target, address)
    if settings.endpoints:
        hosts += _aliases(container)
    if not hosts:
        return settings
    return replace(
        settings,
        env=(*env, *settings.env),
        host=replace(settings.host, extra_hosts=(*settings.host.extra_hosts, *hosts)),
    )


def refresh(container: Container) -> None:
    """A running container's /etc/hosts anew. The caller holds its directory's lock."""
    settings = ContainerSettings.from_json(container.settings)
    host().running.update(told(container, settings), settings.host.limits, None)
    there = sorted(host().network.attached(container.uid), key=lambda one: one.interface)
    host().containers.write_etc(container.uid, there)


def follow(target: Container) -> None:
    """Tell those that are linked with one that has started, or come onto a network. Takes their
    locks: the caller holds none."""
    rows = Container.objects.filter(
        Q(settings__endpoints__icontains='"links"')
        | Q(settings__host__links__icontains=target.uid),
        namespace_id=target.namespace_id,
        endpoints__network__in=target.endpoints.values("network"),
    ).exclude(pk=target.pk)
    for row in rows.running().distinct():
        try:
            with ContainerDir(host().config, row.uid).lock():
                fresh = Container.objects.filter(pk=row.pk).running().first()
                if fresh is not None:
                    refresh(fresh)
        except QuaysideError as error:  # the target runs all the same
            logger.warning("links of %s: %s", row.name, error)


def asked_by_name(container: Container, network: Network) -> tuple[tuple[str, str], ...]:
    """(name, alias) of its links on a network as the resolver there is told of them, less those
    that no resolver can be asked for."""
    pairs = map(links.parse, addresses.wishes_of(container, network).get("links", ()))
    # A whole id, which the command line may send, is no label; its first 12 are a name there.
    short = ((name[:12] if _UID.fullmatch(name) else name, alias) for name, alias in pairs)
    return tuple(pair for pair in short if all(map(is_resolvable, pair)))


def _aliases(container: Container) -> Iterator[str]:
    """`alias:address` of links on networks of one's own."""
    for endpoint in container.endpoints.select_related("network").order_by("pk"):
        for link in addresses.wishes_of(container, endpoint.network).get("links", ()):
            name, alias = links.parse(link)
            address = _address(container, endpoint.network, name)
            if address:
                yield f"{alias}:{address}"


def _address(container: Container, network: Network, name: str) -> str:
    meant = Container.objects.filter(namespace_id=container.namespace_id).lookup(name)
    found = network.endpoints.filter(container__in=meant).order_by("pk").first()
    return (found.address or "") if found else ""


def _default_address(target: Container) -> str:
    for endpoint in target.endpoints.select_related("network"):
        if networks.is_default(endpoint.network):
            return endpoint.address or ""
    return ""


def _variables(container: Container, alias: str, target: Container, address: str) -> Iterator[str]:
    prefix = alias.upper().replace("-", "_")
    texts = [str(text) for text in target.settings.get("exposed_ports", ())]
    ports = sorted({_port(text) for text in texts if text.partition("/")[0].isdecimal()})
    for first, (protocol, number) in enumerate(ports):
        whole = f"{protocol}://{address}:{number}"
        if not first:
            yield f"{prefix}_PORT={whole}"
        name = f"{prefix}_PORT_{number}_{protocol.upper()}"
        yield f"{name}={whole}"
        yield f"{name}_ADDR={address}"
        yield f"{name}_PORT={number}"
        yield f"{name}_PROTO={protocol}"
    yield f"{prefix}_NAME=/{container.name}/{alias}"
    for entry in target.settings.get("env", ()):
        key, given, value = str(entry).partition("=")
        if given and key not in _OWN:
            yield f"{prefix}_ENV_{key}={value}"


def _port(text: str) -> tuple[str, int]:
    """tcp goes first, then the lower number."""
    number, _, protocol = text.partition("/")
    return protocol or "tcp", int(number)
