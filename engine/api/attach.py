"""POST /containers/ID/attach, its websocket, and the terminal's size.

The CLI attaches before it starts: output is what the log gets from the moment of attaching on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import WSCloseCode, WSMsgType, web

from engine.api import keys, sizes
from engine.api.call import Call, Routes
from engine.api.changes import changes, topic
from engine.api.conversation import Input, Left, Terms, converse, follow
from engine.api.frames import Format
from engine.api.happenings import happened
from engine.api.hijack import Taken, content_type, taken
from engine.api.source import NextRun, Run, sources, stored
from engine.containers.attempts import Attempt
from engine.containers.layout import ContainerDir
from engine.containers.logs import LogReader
from engine.containers.readers import reading
from engine.errors import InvalidInput, WrongState
from engine.events import Kind
from engine.models import Container
from engine.runtime import conmon
from engine.services.containers import find_container
from engine.services.orm import orm

routes = Routes()

# What one websocket's client may send at once.
_MOST_MESSAGE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Wish:
    """The request's flags."""

    stream: bool
    logs: bool
    stdin: bool
    stdout: bool
    stderr: bool

    @classmethod
    def of(cls, call: Call) -> _Wish:
        return cls(*(call.flag(name) for name in ("stream", "logs", "stdin", "stdout", "stderr")))

    @property
    def output(self) -> bool:
        return self.stdout or self.stderr


@routes.post("/containers/{id}/attach")
async def attach(call: Call) -> web.StreamResponse:
    container, wish, terms = await _asked(call)
    form = Format(wish.stdout, wish.stderr, framed=not container.tty)
    directory = ContainerDir(call.config, container.uid)
    async with _run_of(call, container) as run, sources().reading(directory.log, form) as source:
        # Where it begins is settled before the answer: the start may follow at once.
        offset = await asyncio.to_thread(_begin, directory, container, wish)
        happened(container, "attach")
        async with (
            _held(call, container, wish) as held,
            taken(call, content_type(call, framed=form.framed)) as stream,
        ):
            if wish.logs:
                await stream.head_read()
            if wish.stream:
                left = await converse(stream, terms, source, run, offset if wish.output else None)
                held.close()
                if left is Left.DETACHED:
                    happened(container, "detach")
            elif wish.logs and wish.output:
                async for data in stored(directory.log, form, offset, source.end):
                    await stream.write(data)
            await stream.finish()
    return Taken()


@asynccontextmanager
async def _held(call: Call, container: Container, wish: _Wish) -> AsyncIterator[ExitStack]:
    """A `--rm` waits until what is held is let go, from before the answer on."""
    with ExitStack() as held:
        if wish.stream and wish.output:
            held.enter_context(reading(call.config, container.uid))
        yield held


@routes.get("/containers/{id}/attach/ws")
async def attach_ws(call: Call) -> web.StreamResponse:
    """The same in a websocket's messages: never framed, both streams in one (moby)."""
    container, wish, terms = await _asked(call)
    form = Format(wish.stdout, wish.stderr, framed=False)
    directory = ContainerDir(call.config, container.uid)
    async with (
        _run_of(call, container) as run,
        sources().reading(directory.log, form) as source,
        _held(call, container, wish) as held,
    ):
        offset = await asyncio.to_thread(_begin, directory, container, wish)
        happened(container, "attach")
        socket = web.WebSocketResponse(max_msg_size=_MOST_MESSAGE, heartbeat=None)
        await socket.prepare(call.request)
        process = Input(terms, run)

        async def write(data: bytes) -> None:
            await socket.send_bytes(data)
            process.written(len(data))

        async def typing() -> None:
            async for message in socket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY) and terms.stdin:
                    data = message.data
                    await process.write(data.encode() if isinstance(data, str) else data)

        if wish.stream:
            reading = asyncio.create_task(follow(source, run, offset, write))
            writing = asyncio.create_task(typing())
            try:
                await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (reading, writing):
                    task.cancel()
                await asyncio.gather(reading, writing, return_exceptions=True)
                process.close()
                held.close()
        elif wish.logs:
            async for data in stored(directory.log, form, offset, source.end):
                await write(data)
        await socket.close(code=WSCloseCode.OK)
    return socket


@routes.post("/containers/{id}/resize")
async def resize(call: Call) -> web.Response:
    """Of a container that does not run yet it is kept for its next start."""
    container = await orm(find_container, call.namespace, call.path("id"))
    rows, columns = sizes.asked(call)
    sizes.remember(container.uid, columns, rows)
    if container.is_running:
        try:
            await asyncio.to_thread(
                conmon.resize, ContainerDir(call.config, container.uid).bundle, columns, rows
            )
        except WrongState as error:
            raise WrongState(f"Container {container.uid} is not running") from error
        happened(container, "resize", height=str(rows), width=str(columns))
    elif container.state not in (Container.State.CREATED, Container.State.EXITED):
        raise WrongState(f"Container {container.uid} is not running")
    return web.Response()


async def _asked(call: Call) -> tuple[Container, _Wish, Terms]:
    """Raises NotFound, InvalidInput, and WrongState as moby says it."""
    sequence = keys.parse(call.text("detachKeys"))
    container = await orm(find_container, call.namespace, call.path("id"))
    wish = _Wish.of(call)
    if not (wish.stream or wish.logs):
        raise InvalidInput("Bad parameters: you must choose at least one of stream and logs")
    if container.state == Container.State.PAUSED:
        raise WrongState(
            f"container {call.path('id')} is paused, unpause the container before attach"
        )
    if container.state == Container.State.RESTARTING:
        raise WrongState(
            f"Container {container.uid} is restarting, wait until the container is running"
        )
    return (
        container,
        wish,
        Terms(
            bundle=ContainerDir(call.config, container.uid).bundle,
            tty=container.tty,
            stdin=wish.stdin and container.open_stdin,
            once=bool(container.settings.get("stdin_once")),
            keys=sequence,
        ),
    )


def _begin(directory: ContainerDir, container: Container, wish: _Wish) -> int:
    with LogReader(directory.log) as reader:
        first, end = reader.bounds()
        return first if wish.logs else reader.line_start(end)


@asynccontextmanager
async def _run_of(call: Call, container: Container) -> AsyncIterator[Run]:
    """The start that is on, else the one that comes."""
    directory = ContainerDir(call.config, container.uid)
    if container.is_running:
        attempt = Attempt(directory.exits(container.generation), container.uid)
        async with sources().run(attempt) as run:
            yield run
    else:
        following = container.generation + 1
        async with sources().next_run(call.config, container.uid, following) as coming:
            watching = asyncio.create_task(_removed(container, coming))
            try:
                yield coming
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)


async def _removed(container: Container, coming: NextRun) -> None:
    """Until it starts: one that is removed before leaves no end on disk."""
    row = Container.objects.filter(pk=container.pk)

    async def look() -> bool | None:
        if coming.started.is_set():
            return False
        return None if await orm(row.exists) else True

    if await changes.until(look, topic(Kind.CONTAINER, container.pk)):
        coming.give_up()
