"""The filters of `docker ps` (moby daemon/list.go): read once, then asked of each row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet

from engine.api.host_config import split_port
from engine.errors import InvalidInput, NotFound
from engine.models import Container, Image, Namespace
from engine.services import labels
from engine.services.containers import find_container
from engine.services.images import find_image

_KNOWN = frozenset(
    {"ancestor", "before", "exited", "id", "isolation", "label", "name", "status", "health"}
    | {"since", "volume", "network", "is-task", "publish", "expose"}
)
_HEALTH = frozenset({"starting", "healthy", "unhealthy", "none"})


@dataclass(frozen=True, slots=True)
class Filters:
    """`any_state`: stopped containers too, without `all`. `images` None is any."""

    given: Mapping[str, list[str]]
    names: tuple[re.Pattern[str], ...]
    ids: tuple[re.Pattern[str], ...]
    images: frozenset[str] | None
    before: Container | None
    since: Container | None
    exited: tuple[int, ...]
    ports: Mapping[str, list[tuple[int, int, str]]]

    @property
    def any_state(self) -> bool:
        return bool(self.given.get("status"))

    def apply(self, query: QuerySet[Container]) -> QuerySet[Container]:
        """What the database can tell by itself."""
        if states := self.given.get("status"):
            query = query.filter(state__in=states)
        for row, later in ((self.before, False), (self.since, True)):
            if row is not None:
                side = "gt" if later else "lt"
                query = query.filter(
                    Q(**{f"created_at__{side}": row.created_at})
                    | Q(created_at=row.created_at, **{f"pk__{side}": row.pk})
                )
        if self.exited:
            query = query.filter(exit_code__in=self.exited).exclude(
                state__in=[Container.State.RUNNING, Container.State.PAUSED]
            )
        return query

    def fits(self, row: Container) -> bool:
        """What its own row tells."""
        if self.names and not any(
            p.search(row.name) or p.search(f"/{row.name}") for p in self.names
        ):
            return False
        if self.ids and not any(pattern.search(row.uid) for pattern in self.ids):
            return False
        wanted = self.given.get("label", ())
        if not labels.match(row.settings.get("labels", {}), wanted):
            return False
        if self.images is not None and row.settings.get("image") not in self.images:
            return False
        health = self.given.get("health")
        if health and str((row.health or {}).get("status") or "none") not in health:
            return False
        return "true" not in map(_truth, self.given.get("is-task", ()))

    def fits_shape(
        self,
        mounts: Iterable[Mapping[str, Any]],
        ports: Iterable[Mapping[str, Any]],
        networks: Mapping[str, Mapping[str, Any]],
        row: Container,
    ) -> bool:
        """What its volumes, ports and networks tell."""
        if wanted := self.given.get("volume"):
            known = {m.get("Name") or m["Source"] for m in mounts} | {
                m["Destination"] for m in mounts
            }
            if not known & set(wanted):
                return False
        if wanted := self.given.get("network"):
            ids = {str(one["NetworkID"]) for one in networks.values()} - {""}
            if not any(
                text in networks or any(id.startswith(text) for id in ids) for text in wanted
            ):
                return False
        if wanted_ports := self.ports.get("publish"):
            public = {(p["PublicPort"], p["Type"]) for p in ports if "PublicPort" in p}
            if not _any_within(wanted_ports, public):
                return False
        if wanted_ports := self.ports.get("expose"):
            exposed = {split_port(text) for text in row.settings.get("exposed_ports", ())}
            if not _any_within(wanted_ports, exposed):
                return False
        return True


def _any_within(ranges: Iterable[tuple[int, int, str]], ports: Iterable[tuple[int, str]]) -> bool:
    return any(
        first <= port <= last and protocol == kind
        for first, last, protocol in ranges
        for port, kind in ports
    )


def read_filters(namespace: Namespace, given: Mapping[str, list[str]]) -> Filters:
    """Raises InvalidInput, and NotFound for a container that is not there."""
    for name in given:
        if name not in _KNOWN:
            raise InvalidInput(f"Invalid filter '{name}'")
    for value in given.get("status", ()):
        if value not in Container.State.values:
            raise InvalidInput(f"Invalid filter 'status={value}'")
    for value in given.get("health", ()):
        if value not in _HEALTH:
            raise InvalidInput(f"Unrecognised filter value for health: {value}")
    for value in given.get("is-task", ()):
        if _truth(value) is None:
            raise InvalidInput(f"Invalid filter 'is-task=[{value}]'")
    return Filters(
        given=given,
        names=_patterns(given.get("name", ())),
        ids=_patterns(f"^{text}" for text in given.get("id", ())),
        images=_images(namespace, given["ancestor"]) if given.get("ancestor") else None,
        before=_one(namespace, given.get("before", ())),
        since=_one(namespace, given.get("since", ())),
        exited=tuple(_code(value) for value in given.get("exited", ())),
        ports={
            name: [_port_range(name, value) for value in given.get(name, ())]
            for name in ("publish", "expose")
        },
    )


def _truth(text: str) -> str | None:
    word = text.lower()
    return {"1": "true", "true": "true", "t": "true", "0": "false", "false": "false"}.get(word)


def _patterns(texts: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    """A text that is no regular expression fits nothing but itself, as in Docker."""
    found = []
    for text in texts:
        try:
            found.append(re.compile(text))
        except re.error:
            found.append(re.compile(f"^{re.escape(text)}$"))
    return tuple(found)


def _images(namespace: Namespace, names: Iterable[str]) -> frozenset[str]:
    """Ids of the images named, and of all that are built on one of them."""
    found: set[str] = set()
    for name in names:
        try:
            ancestor = find_image(namespace, name)
        except (NotFound, InvalidInput):
            continue  # names no image: fits no container
        stack = [layer["diff_id"] for layer in ancestor.layers]
        found.add(ancestor.digest)
        for digest, layers in Image.objects.for_namespace(namespace).values_list(
            "digest", "layers"
        ):
            if stack and [layer["diff_id"] for layer in layers[: len(stack)]] == stack:
                found.add(digest)
    return frozenset(found)


def _one(namespace: Namespace, names: list[str] | tuple[str, ...]) -> Container | None:
    if not names:
        return None
    try:
        return find_container(namespace, names[-1].removeprefix("/"))
    except NotFound as error:
        raise NotFound(f"no such container {names[-1]}") from error


def _code(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidInput(f'strconv.Atoi: parsing "{text}": invalid syntax') from error


def _port_range(name: str, text: str) -> tuple[int, int, str]:
    """`80`, `80/tcp`, `8000-8080/udp`. Raises InvalidInput in moby's words."""
    try:
        return _ports(text)
    except InvalidInput as error:
        raise InvalidInput(
            f"error while looking up for {name} {text}: strconv.ParseUint: "
            f'parsing "{text.partition("/")[0]}": invalid syntax'
        ) from error


def _ports(text: str) -> tuple[int, int, str]:
    numbers, _, protocol = text.partition("/")
    first, dash, last = numbers.partition("-")
    low, kind = split_port(f"{first}/{protocol}" if protocol else first)
    return low, split_port(last)[0] if dash else low, kind
