"""POST /containers/ID/exec, and /exec/ID/{start,json,resize}.

The connection is answered before the process is started: some clients lose what comes in one packet
with the head. Its output comes from its own log, its exit code is known before the stream ends.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from aiohttp import web

from engine.api import execs, keys, sizes
from engine.api.binds import refuse_unread
from engine.api.call import Call, Routes, reply
from engine.api.containers import runs
from engine.api.conversation import Left, Terms, converse
from engine.api.errors import OperationFailed, QueueAway, message_of
from engine.api.execs import Asked
from engine.api.fields import Fields
from engine.api.frames import Format, frame
from engine.api.happenings import happened
from engine.api.hijack import Stream, Taken, content_type, taken
from engine.api.source import sources
from engine.ceiling import Ceiling
from engine.containers.exec import Exec, ExecRequest, Execs
from engine.errors import Conflict, InvalidInput, PolicyDenied, QuaysideError, WrongState
from engine.models import Container
from engine.runtime import cgroups
from engine.services.containers import container_starting, find_container
from engine.services.orm import orm
from engine.services.work.host import host

logger = logging.getLogger(__name__)
routes = Routes()

# Whatever the reason, as dockerd 20.10 has it; newer ones tell a missing command by 127.
_CANNOT = 126
_T = TypeVar("_T")


@routes.post("/containers/{id}/exec")
async def create(call: Call) -> web.Response:
    cgroups.expect_moves()  # its start comes next
    body = Fields(await call.json(), "ExecConfig")
    command = body.texts("Cmd")
    container = await orm(find_container, call.namespace, call.path("id"))
    if not command:
        raise InvalidInput("No exec command specified")
    if not container.is_up:
        container = await _begun(call, container)
    _must_run(container, call.path("id"))
    privileged = body.flag("Privileged")
    if privileged and not Ceiling.load(call.config.home / "ceiling.json").privileged:
        raise PolicyDenied(
            "privileged execs are not allowed on this machine",
            hint="root's ceiling.json would have to say so",
        )
    detach_keys = body.text("DetachKeys")
    keys.parse(detach_keys)
    tty, stdin = body.flag("Tty"), body.flag("AttachStdin")
    made = Asked(
        container=container,
        request=ExecRequest(
            args=command,
            env=body.texts("Env"),
            working_dir=body.text("WorkingDir"),
            user=body.text("User"),
            tty=tty,
            stdin=stdin,
            stdin_once=stdin and not tty,
            privileged=privileged,
        ),
        attach_stdin=stdin,
        attach_stdout=body.flag("AttachStdout"),
        attach_stderr=body.flag("AttachStderr"),
        privileged=privileged,
        detach_keys=detach_keys,
        size=_console_size(body),
    )
    # Older clients name the container here too, and say already that they will not wait.
    for key in ("Container", "Detach"):
        body.raw(key)
    refuse_unread(body, "ExecConfig")
    asked = execs.add(made)
    happened(container, f"exec_create: {_words(command)}", execID=asked.id)
    return reply({"Id": asked.id}, 201)


@routes.post("/exec/{id}/start")
async def start(call: Call) -> web.StreamResponse:
    body = Fields(await call.json(), "ExecStartCheck")
    asked = execs.find(call.path("id"), call.namespace.pk)
    if asked.exit_code is not None:
        raise Conflict(f"Error: Exec command {asked.id} has already run")
    if asked.started:
        raise Conflict(f"Error: Exec command {asked.id} is already running")
    size, detach, tty = _console_size(body), body.flag("Detach"), body.flag("Tty")
    refuse_unread(body, "ExecStartCheck")
    asked.started = True
    asked.size = size or asked.size
    try:
        if detach:
            asked.request = replace(asked.request, stdin=False, stdin_once=False)
            try:
                await _started(asked)
            except QuaysideError as error:
                raise InvalidInput(_failure(asked, error)) from error
            return web.Response()
        framed = not tty
        async with taken(call, content_type(call, framed=framed)) as stream:
            try:
                made = await _started(asked)
            except QuaysideError as error:
                text = f"{_failure(asked, error)}\r\n".encode()
                await stream.write(frame(1, text) if framed else text)
            else:
                await _attached(asked, made, stream, framed)
            await stream.finish()
        return Taken()
    finally:
        asked.left.set()


@routes.get("/exec/{id}/json")
async def inspect(call: Call) -> web.Response:
    asked = execs.find(call.path("id"), call.namespace.pk)
    config: dict[str, object] = {
        "tty": asked.request.tty,
        "entrypoint": asked.request.args[0],
        "arguments": list(asked.request.args[1:]),
        "privileged": asked.privileged,
    }
    if asked.request.user:
        config["user"] = asked.request.user
    sequence = keys.parse(asked.detach_keys) if asked.detach_keys else b""
    return reply(
        {
            "ID": asked.id,
            "Running": asked.running,
            "ExitCode": asked.exit_code,
            "ProcessConfig": config,
            "OpenStdin": asked.attach_stdin,
            "OpenStderr": asked.attach_stderr,
            "OpenStdout": asked.attach_stdout,
            "CanRemove": asked.exit_code is not None,
            "ContainerID": asked.container.uid,
            "DetachKeys": base64.b64encode(sequence).decode(),
            "Pid": asked.pid,
        }
    )


@routes.post("/exec/{id}/resize")
async def resize(call: Call) -> web.Response:
    """One that has not started yet starts with this size."""
    asked = execs.find(call.path("id"), call.namespace.pk)
    rows, columns = sizes.asked(call)
    asked.size = (columns, rows) if columns and rows else asked.size
    if asked.started:
        await asked.up.wait()
        if not asked.running:
            raise Conflict(f"exec {asked.id} is not running")
        try:
            await asyncio.to_thread(_made(asked).resize, columns, rows)
        except WrongState as error:
            raise Conflict(f"exec {asked.id} is not running") from error
    happened(asked.container, "resize", height=str(rows), width=str(columns))
    return web.Response()


# ---- the process


_busy: set[asyncio.Task[Any]] = set()


def _beside(work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """A task of its own: a client that goes must not leave an exec half known."""
    task = asyncio.create_task(work)
    _busy.add(task)
    task.add_done_callback(_busy.discard)
    return task


async def _started(asked: Asked) -> Exec:
    """Raises QuaysideError; the exit code is then set."""
    return await asyncio.shield(_beside(_start(asked)))


async def _start(asked: Asked) -> Exec:
    request = replace(asked.request, size=asked.size if asked.request.tty else None)
    try:
        made = await asyncio.to_thread(
            _execs().start, asked.container.uid, request, asked.folder_id
        )
    except BaseException:
        asked.ended(_CANNOT)
        raise
    started = made.attempt.started()
    asked.pid = started.init_pid if started else 0
    asked.running = True
    asked.up.set()
    happened(asked.container, f"exec_start: {_words(request.args)}", execID=asked.id)
    _beside(_watch(asked, made))
    return made


def _words(command: Sequence[str]) -> str:
    """moby: the program, a blank, its arguments, of which there may be none."""
    return f"{command[0]} {' '.join(command[1:])}"


async def _watch(asked: Asked, made: Exec) -> None:
    """Its end is written down, whoever is still there to see it."""
    async with sources().run(made.attempt) as run:
        await run.over.wait()
    code = run.exit.code if run.exit is not None else 137
    asked.ended(code)
    happened(asked.container, "exec_die", execID=asked.id, exitCode=str(code))
    await asked.left.wait()
    await asyncio.to_thread(_execs().remove, made)


async def _attached(asked: Asked, made: Exec, stream: Stream, framed: bool) -> None:
    form = Format(asked.attach_stdout, asked.attach_stderr, framed=framed)
    terms = Terms(
        bundle=made.folder,
        tty=asked.request.tty,
        stdin=asked.attach_stdin,
        once=True,
        keys=keys.parse(asked.detach_keys),
    )
    output = asked.attach_stdout or asked.attach_stderr
    async with sources().run(made.attempt) as run, sources().reading(made.log, form) as source:
        left = await converse(stream, terms, source, run, 0 if output else None)
    if left is Left.ENDED:
        await asked.known.wait()
    elif left is Left.DETACHED:
        happened(asked.container, "exec_detach", execID=asked.id)


def _failure(asked: Asked, error: QuaysideError) -> str:
    """moby's sentence."""
    cause = error.__cause__
    if "code" in error.context and isinstance(cause, QuaysideError):
        said = cause.message.partition(": ")[2] or cause.message
        return f"OCI runtime exec failed: {said}: unknown"
    if isinstance(error, WrongState):
        return f"Container {asked.container.uid} is not running"
    if error.context.get("field") == "user":
        return error.message  # moby's own sentence, without our hint
    return message_of(error)


async def _begun(call: Call, container: Container) -> Container:
    """Behind a start on its way, as engine.services.work.behind has it: as it is then."""
    if start := await orm(container_starting, container):
        with suppress(OperationFailed, QueueAway):  # then it does not run
            await runs(container, start)
    return await orm(find_container, call.namespace, container.uid)


def _must_run(container: Container, name: str) -> None:
    """Raises WrongState as moby says it."""
    if container.state == Container.State.PAUSED:
        raise WrongState(f"Container {name} is paused, unpause the container before exec")
    if container.state == Container.State.RESTARTING:
        raise WrongState(
            f"Container {container.uid} is restarting, wait until the container is running"
        )
    if not container.is_running:
        raise WrongState(f"Container {container.uid} is not running")


def _made(asked: Asked) -> Exec:
    return _execs().find(asked.container.uid, asked.folder_id)


_kept: Execs | None = None


def _execs() -> Execs:
    global _kept
    if _kept is None:
        _kept = Execs(host().config, host().runtime)
    return _kept


# ---- the body


def _console_size(body: Fields) -> tuple[int, int] | None:
    """(columns, rows) of `[rows, columns]`."""
    match body.raw("ConsoleSize"):
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return columns, rows
    return None
