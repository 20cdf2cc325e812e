"""GET /containers/ID/logs: what a container has written, and what it goes on to write."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime

from aiohttp import web

from engine.api.call import Call, Routes
from engine.api.conversation import follow
from engine.api.frames import Format
from engine.api.hijack import content_type
from engine.api.log_details import details
from engine.api.source import sources, stored, written_down
from engine.containers.attempts import Attempt
from engine.containers.layout import ContainerDir
from engine.containers.logs import LogReader
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput, Unsupported
from engine.models import Container
from engine.services.containers import find_container
from engine.services.orm import orm

routes = Routes()

_STAMP = re.compile(r"(\d{1,11})(?:\.(\d{1,9}))?")


@routes.get("/containers/{id}/logs")
async def logs(call: Call) -> web.StreamResponse:
    if not (call.flag("stdout") or call.flag("stderr")):
        raise InvalidInput("Bad parameters: you must choose at least one stream")
    since, until = _time(call, "since"), _time(call, "until")
    container = await orm(find_container, call.namespace, call.path("id"))
    settings = ContainerSettings.from_json(container.settings)
    if settings.host.log.driver == "none":
        raise Unsupported("configured logging driver does not support reading")
    form = Format(
        call.flag("stdout"),
        call.flag("stderr"),
        framed=not container.tty,
        lines=True,
        timestamps=call.flag("timestamps"),
        details=details(settings) if call.flag("details") else b"",
    )
    directory = ContainerDir(call.config, container.uid)
    if container.is_running and not call.flag("follow"):
        await written_down(Attempt(directory.exits(container.generation), container.uid))
    start, end = await asyncio.to_thread(_span, directory, call.text("tail"), since, until)
    response = web.StreamResponse(headers={"Content-Type": content_type(call, framed=form.framed)})
    response.enable_chunked_encoding()
    await response.prepare(call.request)
    left = _seconds(until) - time.time() if until else None
    if call.flag("follow") and container.is_running and (left is None or left > 0):
        await _follow(call, container, form, start, response, left)
    else:
        async for data in stored(directory.log, form, start, end):
            await response.write(data)
    await response.write_eof()
    return response


async def _follow(
    call: Call,
    container: Container,
    form: Format,
    start: int,
    response: web.StreamResponse,
    seconds: float | None,
) -> None:
    """Until this start is over, as in Docker also where another follows."""
    directory = ContainerDir(call.config, container.uid)
    attempt = Attempt(directory.exits(container.generation), container.uid)
    async with (
        sources().run(attempt) as run,
        sources().reading(directory.log, form) as source,
    ):
        try:
            async with asyncio.timeout(seconds):
                await follow(source, run, start, response.write)
        except TimeoutError:
            pass  # `until` has come


def _span(directory: ContainerDir, tail: str, since: str, until: str) -> tuple[int, int]:
    """Where to begin and to end. A tail that is no number is all, as in moby."""
    with LogReader(directory.log) as reader:
        start, end = reader.bounds()
        if since:
            start = reader.seek(since)
        if re.fullmatch(r"\d{1,9}", tail):
            start = max(start, reader.tail(int(tail)))
        if until:
            # A line of that very moment is within.
            end = reader.seek(until + "0")
    return start, end


def _time(call: Call, name: str) -> str:
    """`SECONDS[.NANOSECONDS]` since 1970 as a line's time; "" for none. Raises InvalidInput."""
    text = call.text(name)
    if not text or text == "0":
        return ""
    found = _STAMP.fullmatch(text)
    if found is None:
        raise InvalidInput(f'strconv.ParseInt: parsing "{text:.40}": invalid syntax')
    seconds, fraction = int(found[1]), found[2] or ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:0<9}Z"


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(f"{stamp[:26]}+00:00").timestamp()
