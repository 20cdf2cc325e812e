"""POST /containers/{id}/wait: how a container ends, also when it is gone by then.

The mark is set before the headers go out, so that `docker run` misses nothing between the answer
and the start it sends next. The end is read from the `die` event, which is written in the
transaction of the end and outlives the row of a `--rm` container.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from engine.api.call import Call, Routes
from engine.api.changes import changes, topic
from engine.errors import InvalidInput
from engine.events import Kind
from engine.models import Container, Event, Namespace
from engine.services.containers import find_container
from engine.services.orm import orm

routes = Routes()

_RUNNING = (Container.State.RUNNING, Container.State.PAUSED, Container.State.RESTARTING)
_CONDITIONS = ("not-running", "next-exit", "removed")


@dataclass(frozen=True, slots=True)
class _Mark:
    """Events up to `event` were before the wait."""

    namespace: int
    pk: int
    uid: str
    condition: str
    event: int


@routes.post("/containers/{id}/wait")
async def wait(call: Call) -> web.StreamResponse:
    condition = call.text("condition") or "not-running"
    if condition not in _CONDITIONS:
        raise InvalidInput(f'invalid condition: "{condition}"')
    mark = await orm(_mark, call.namespace, call.path("id"), condition)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(call.request)
    transport = call.request.transport

    async def look() -> dict[str, Any] | None:
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        return await orm(_ended, mark)

    ended = await changes.until(look, topic(Kind.CONTAINER, mark.pk))
    await response.write(json.dumps(ended).encode() + b"\n")
    await response.write_eof()
    return response


def _mark(namespace: Namespace, name: str, condition: str) -> _Mark:
    # Before the row is looked up: what comes in between is no harm, what is missed would be.
    last = Event.objects.order_by("-pk").values_list("pk", flat=True).first()
    container = find_container(namespace, name.removeprefix("/"))
    return _Mark(namespace.pk, container.pk, container.uid, condition, last or 0)


def _ended(mark: _Mark) -> dict[str, Any] | None:
    row = Container.objects.filter(pk=mark.pk).only("state", "exit_code", "error").first()
    if row is None:
        return {"StatusCode": _last_code(mark, 0) or 0}
    if mark.condition == "removed":
        return None
    if mark.condition == "not-running" and row.state not in _RUNNING:
        return {"StatusCode": row.exit_code or 0}
    code = _last_code(mark, mark.event)
    return None if code is None else {"StatusCode": code}


def _last_code(mark: _Mark, after: int) -> int | None:
    """Of its first end after `after`; of its last one where it is all the same."""
    ends = Event.objects.filter(
        namespace_id=mark.namespace, actor_id=mark.uid, action="die", pk__gt=after
    )
    found = ends.order_by("pk" if after else "-pk").values_list("attributes", flat=True).first()
    return None if found is None else int(found.get("exitCode", 0))
