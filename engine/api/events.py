"""GET /events: what happened, in Docker's words, from rows; then what happens, as it is written.

Live events are fetched when the doorbell rings for the namespace. A client that reads slowly is
waited for; what it has not read yet stays in the table.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from django.utils import timezone

from engine.api.call import Call, Routes
from engine.api.changes import changes, everything
from engine.api.happenings import settled
from engine.api.words import point
from engine.errors import InvalidInput
from engine.models import Event
from engine.services import labels
from engine.services.orm import orm

routes = Routes()

_BATCH = 500
# Two transactions may be written down in another order than their keys were given (PostgreSQL).
_LATE = 200
_WITH_DETAIL = {"health_status", "exec_create", "exec_start"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@routes.get("/events")
async def events(call: Call) -> web.StreamResponse:
    now = timezone.now()
    since, until = (_moment(call, name, now) for name in ("since", "until"))
    wanted = Wanted(call.filters())
    await settled()
    feed = _Feed(call.namespace.pk, since, until, await orm(_last))
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(call.request)
    transport = call.request.transport

    async def look() -> list[Event] | None:
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        return await orm(feed.more) or None

    if since is not None:
        while rows := await orm(feed.past):
            await _send(response, rows, wanted)
    if until is None or until > timezone.now():
        left = None if until is None else (until - timezone.now()).total_seconds()
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                while True:
                    rows = await changes.until(look, everything(call.namespace.pk))
                    await _send(response, rows, wanted)
    await response.write_eof()
    return response


def _moment(call: Call, name: str, now: datetime) -> datetime | None:
    text = call.text(name)
    if not text:
        return None
    found = point(text, now)
    if found is None:
        raise InvalidInput(f'parsing time "{text}": invalid {name}')
    return found


def _last() -> int:
    return Event.objects.order_by("-pk").values_list("pk", flat=True).first() or 0


class _Feed:
    """Where one client has come to."""

    def __init__(
        self, namespace: int, since: datetime | None, until: datetime | None, last: int
    ) -> None:
        self._rows = Event.objects.filter(namespace_id=namespace).order_by("pk")
        self._since = since
        if until is not None:
            self._rows = self._rows.filter(at__lte=until)
        self._last = self._begin = last
        self._read = 0
        self._sent: deque[int] = deque(maxlen=4 * _BATCH)

    def past(self) -> list[Event]:
        """The next of what was there when the client came."""
        rows = self._rows.filter(at__gte=self._since, pk__gt=self._read, pk__lte=self._last)
        return self._taken(list(rows[:_BATCH]))

    def more(self) -> list[Event]:
        """What has come since."""
        after = max(self._last - _LATE, self._begin)
        rows = self._rows.filter(pk__gt=after)
        sent = [pk for pk in self._sent if pk > after]
        return self._taken(list(rows.exclude(pk__in=sent)[:_BATCH]))

    def _taken(self, rows: list[Event]) -> list[Event]:
        for row in rows:
            self._sent.append(row.pk)
            self._read = max(self._read, row.pk)
            self._last = max(self._last, row.pk)
        return rows


async def _send(response: web.StreamResponse, rows: list[Event], wanted: Wanted) -> None:
    lines = [line_of(row) for row in rows if wanted.fits(row)]
    if lines:
        await response.write(b"".join(lines))


def line_of(event: Event) -> bytes:
    """One JSON line, with the fields from before API 1.22."""
    shape: dict[str, Any] = {}
    if event.type in ("container", "image"):
        shape["status"] = event.action
        if event.actor_id:
            shape["id"] = event.actor_id
        if event.type == "container" and event.attributes.get("image"):
            shape["from"] = event.attributes["image"]
    span = event.at - _EPOCH
    micros = (span.days * 86400 + span.seconds) * 1_000_000 + span.microseconds
    shape |= {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor_id, "Attributes": event.attributes},
        "scope": "local",
        "time": micros // 1_000_000,
        "timeNano": micros * 1000,
    }
    return json.dumps(shape, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Wanted:
    """`given`: the filters (moby daemon/events/filter.go)."""

    given: Mapping[str, list[str]]

    def fits(self, event: Event) -> bool:
        return (
            self._action(event.action)
            and self._exact("type", event.type)
            and self._exact("scope", "local")
            and self._named("container", event)
            and self._named("volume", event)
            and self._named("network", event)
            and self._named("daemon", event)
            and self._image(event)
            and labels.match(event.attributes, self.given.get("label", ()))
        )

    def _exact(self, name: str, *texts: str) -> bool:
        wanted = self.given.get(name)
        return not wanted or any(text in wanted for text in texts)

    def _action(self, action: str) -> bool:
        wanted = self.given.get("event", ())
        if _WITH_DETAIL & set(wanted):
            return any(action.startswith(one) for one in wanted)
        return self._exact("event", action)

    def _named(self, type: str, event: Event) -> bool:
        wanted = self.given.get(type)
        if not wanted:
            return True
        name = event.attributes.get("name", "")
        return any(event.actor_id.startswith(one) or name.startswith(one) for one in wanted)

    def _image(self, event: Event) -> bool:
        key = "image" if event.type == "container" else "name"
        name, id = str(event.attributes.get(key, "")), event.actor_id
        return self._exact("image", id, name, _untagged(id), _untagged(name))


def _untagged(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(":")[0]
