"""Links of `docker run --link` on the default network: which container is meant by which alias.

Kept in a container's settings as `ID:alias`. On a network of one's own a link is a wish of its
endpoint (EndpointSettings.links). What a link does is in `engine.services.work.links`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.errors import InvalidInput, NotFound
from engine.models import Container, Namespace, Operation
from engine.services import operations
from engine.services.lookup import find_container
from engine.services.requests import ContainerRequest

_ALIAS = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_DEFAULT = ("default", "bridge", "none")


def resolved(namespace: Namespace, request: ContainerRequest) -> tuple[str, ...]:
    """A request's links as `ID:alias`; on another network there are none (moby registerLinks).
    Raises InvalidInput."""
    asked, mode = request.host.links, request.network
    kind = "host" if mode == "host" else "container" if mode.startswith("container:") else ""
    if asked and kind:
        raise InvalidInput(
            f"conflicting options: {kind} type networking can't be used with links. This would "
            "result in undefined behavior",
            field="links",
        )
    if mode not in _DEFAULT:
        return ()
    return tuple(dict.fromkeys(_resolved(namespace, text) for text in asked))


def _resolved(namespace: Namespace, text: str) -> str:
    name, alias = parse(text)
    try:
        target = find_container(namespace, name)
    except NotFound as error:
        raise InvalidInput(
            f"could not get container for {name}: No such container: {name}", field="links"
        ) from error
    if target.settings.get("network_mode") == "host":
        raise InvalidInput(
            "conflicting options: host type networking can't be used with links. This would "
            "result in undefined behavior",
            field="links",
        )
    return f"{target.uid}:{alias}"


def parse(text: str) -> tuple[str, str]:
    """(name, alias) of `name:alias`, `name`, or inspect's `/name:/source/alias`. Raises
    InvalidInput."""
    name, colon, alias = text.partition(":")
    if name.startswith("/"):
        name, alias = name[1:], alias.rpartition("/")[2]
    alias = alias if colon else name
    if not _ALIAS.fullmatch(name) or not _ALIAS.fullmatch(alias):
        raise InvalidInput(f"bad format for links: {text}", field="links")
    return name, alias


def targets(container: Container, links: Sequence[str]) -> list[tuple[str, Container]]:
    """(alias, target) of the links, `ID:alias` each, whose targets are there yet."""
    if not links:
        return []
    pairs = [link.partition(":")[::2] for link in links]
    rows = Container.objects.filter(
        namespace_id=container.namespace_id, uid__in=[uid for uid, _ in pairs]
    )
    there = {row.uid: row for row in rows}
    return [(alias, there[uid]) for uid, alias in pairs if uid in there]


def link_remove(namespace: Namespace, name: str, actor: str) -> Operation:
    """`source/alias`. Raises NotFound, InvalidInput for a container's own name."""
    source, slash, alias = name.strip("/").rpartition("/")
    if not slash:
        raise InvalidInput("Conflict, cannot remove the default link name of the container")
    container = find_container(namespace, source)
    kept = (container.settings.get("host") or {}).get("links") or ()
    if not any(link.endswith(f":{alias}") for link in kept):
        raise NotFound(f"no such container: {name}", kind="container", name=name)
    return operations.submit(
        Operation.Kind.CONTAINER_UPDATE,
        namespace,
        actor=actor,
        target=str(container.pk),
        args={"name": container.name, "unlink": alias},
    )
