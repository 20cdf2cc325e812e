"""POST /build, the classic builder's protocol: a tar of the context in, JSON lines out. And the
build cache's prune.

The body goes to a file while it comes, becomes an upload and a build like any other (it is on the
site's list at once), and the answer is the build's log in moby's words (engine.api.build_lines),
read by offset and woken by inotify. A client that leaves cancels its build. BuildKit's /session and
/grpc are refused with a sentence.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from contextlib import suppress
from typing import Any

from aiohttp import web

from engine.api import sign_in_files
from engine.api.build_body import Body, received
from engine.api.build_lines import ENDS, ClassicLines
from engine.api.build_wish import BuildWish, buildkit, read, sign_ins
from engine.api.call import Call, Routes, reply
from engine.api.errors import QueueAway, message_of
from engine.api.json_lines import JsonLines
from engine.api.operations import expected, surely
from engine.containers.watch import FolderWatcher
from engine.errors import (
    DockerfileError,
    InvalidInput,
    NotFound,
    Unsupported,
    WrongState,
)
from engine.models import Build, Operation
from engine.oci.reference import Reference
from engine.registry.credentials import hand_over
from engine.services import build_cache, builds, uploads
from engine.services.orm import orm

routes = Routes()

# The doorbell of a log is inotify's; this is how often is looked whether the client has left, and
# whether the build's row has ended without a last line.
_LOOK_SECONDS = 1.0
_CHUNK = 64 * 1024
_MAX_REGISTRY_CONFIG = 64 * 1024


@routes.post("/build")
async def build(call: Call) -> web.StreamResponse:
    wish = read(call)
    auth: dict[str, str] = {}
    if "X-Registry-Config" in call.request.headers:
        auth = await asyncio.to_thread(_hand_over, call)
    away: QueueAway | None = None
    try:
        async with received(call) as body:
            made, operation = await _begun(call, wish, body, auth)
        answer = _Answer(call, wish, made, operation)
        response = await answer.run()
        away = answer.away
        return response
    finally:
        sign_in_files.done_with(call.config.run_dir, auth.values(), away)


@routes.post("/build/prune")
async def prune(call: Call) -> web.Response:
    """`all`, `filters` (until=24h); the rest of BuildKit's are refused."""
    filters = call.filters()
    for name in filters:
        if name != "until":
            raise InvalidInput(f"invalid filter '{name}'")
    for name in ("keep-storage", "reserved-space", "max-used-space", "min-free-space"):
        if call.number(name):
            raise Unsupported(f"{name} is not supported", hint="use --filter until=24h, or --all")
    pruned = await orm(
        build_cache.prune,
        call.namespace,
        everything=call.flag("all"),
        until=(filters.get("until") or [""])[0],
    )
    return reply({"CachesDeleted": list(pruned.keys), "SpaceReclaimed": pruned.size})


@routes.post("/build/cancel")
async def cancel(call: Call) -> web.Response:
    """BuildKit's; a classic build ends with its connection."""
    raise buildkit()


@routes.post("/session")
async def session(call: Call) -> web.Response:
    raise buildkit()


@routes.post("/grpc")
async def grpc(call: Call) -> web.Response:
    raise buildkit()


def _hand_over(call: Call) -> dict[str, str]:
    """X-Registry-Config: {registry: key}; what cannot be read counts as none, as with Docker."""
    header = call.request.headers.get("X-Registry-Config", "")
    if not header or len(header) > _MAX_REGISTRY_CONFIG:
        return {}
    try:
        found = sign_ins(json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))))
    except ValueError:
        return {}
    return {domain: hand_over(call.config.run_dir, one) for domain, one in found.items()}


async def _begun(
    call: Call, wish: BuildWish, body: Body, auth: dict[str, str]
) -> tuple[Build, Operation]:
    """Both rows; cancelled at once where the client left while they were written."""
    beginning = asyncio.ensure_future(orm(_begin, call, wish, body, auth))
    try:
        return await asyncio.shield(beginning)
    except asyncio.CancelledError:
        await _cancel((await beginning)[0], call)
        raise


async def _cancel(made: Build, call: Call) -> None:
    with suppress(WrongState):
        await orm(builds.build_cancel, made, call.actor)


def _begin(
    call: Call, wish: BuildWish, body: Body, auth: dict[str, str]
) -> tuple[Build, Operation]:
    """The rows, after a look at the Dockerfile: what is wrong with it is an answer of its own, with
    its status, and no build."""
    path, text = body.dockerfile(wish.dockerfile)
    _check(text, path, wish)
    options = wish.options.to_json()
    with uploads.taken(
        call.namespace, _user(call.actor), "docker build", body.path, body.size
    ) as upload:
        made, operation = builds.build_create(
            call.namespace,
            actor=call.actor,
            tag=wish.tags[0] if wish.tags else "",
            more_tags=wish.tags[1:],
            options={**options, "auth": auth} if auth else options,
            upload=upload,
            found="" if "\0" in text else text,
            dockerfile_path=path,
            args=dict(wish.args),
            target=wish.target,
            no_cache=wish.no_cache,
            pull=wish.pull,
        )
        # Here already, so that its log can be waited for before the worker begins.
        (call.config.builds_dir / str(made.pk)).mkdir()
    return made, operation


def _user(actor: str) -> int:
    kind, _, name = actor.partition(":")
    return int(name) if kind == "user" else 0


def _check(text: str, path: str, wish: BuildWish) -> None:
    """In moby's words where it has some (20.10: `dockerfile parse error line 3: …`)."""
    if not text:
        raise InvalidInput(f"the Dockerfile ({path}) cannot be empty")
    try:
        builds.dockerfile_check(text, path, dict(wish.args), wish.target)
    except DockerfileError as error:
        if error.message == "the file has no instructions":
            raise InvalidInput(f"failed to parse {path}: file with no instructions") from error
        if "before the first FROM" in error.message or error.message == "the file has no FROM":
            raise InvalidInput("no build stage in current context") from error
        message = f"dockerfile parse error line {error.context['line']}: {error.message}"
        # Where the sentence is moby's, nothing is added to it.
        hint = "" if "unknown instruction" in message else error.hint
        raise InvalidInput(message, hint=hint) from error
    except NotFound as error:
        raise InvalidInput(f"failed to reach build target {wish.target} in Dockerfile") from error
    except Unsupported as error:
        where = f"{path}:{error.context['line']}: " if "line" in error.context else ""
        raise Unsupported(f"{where}{error.message}", hint=error.hint) from error


class _Answer:
    """One build's lines to one client."""

    def __init__(self, call: Call, wish: BuildWish, made: Build, operation: Operation) -> None:
        self._call, self._build, self._operation = call, made, operation
        tags = [Reference.parse(tag).familiar() for tag in wish.tags]
        self._words = ClassicLines(tags, wish.remove, wish.force_remove, wish.quiet)
        self._lines = JsonLines(call)
        self._folder = call.config.builds_dir / str(made.pk)
        self._rest = b""
        self._offset = 0
        self._over = False
        self.away: QueueAway | None = None

    async def run(self) -> web.StreamResponse:
        try:
            with watcher().subscribe(self._folder) as changed:
                while True:
                    while await self._pass_on():
                        pass
                    if self._over:
                        break
                    try:
                        async with asyncio.timeout(_LOOK_SECONDS):
                            await changed.changed()
                    except TimeoutError:
                        await self._look()
        except (ConnectionError, asyncio.CancelledError):
            # A server that ends leaves its builds going: they are rows, and worked on elsewhere.
            if self._lines.gone:
                await surely(_cancel(self._build, self._call))
            raise
        return await self._lines.end()

    async def _pass_on(self) -> bool:
        """What the log has new; whether there was anything. Raises ConnectionError."""
        try:
            with (self._folder / "log.jsonl").open("rb", buffering=0) as log:
                data = os.pread(log.fileno(), _CHUNK, self._offset)
        except FileNotFoundError:
            return False
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        out: list[dict[str, Any]] = []
        for line in lines:
            event = json.loads(line)
            out += self._words.feed(event)
            self._over = event["t"] in ENDS
        await self._lines.send(*out)
        return bool(data)

    async def _look(self) -> None:
        if self._lines.gone:
            raise ConnectionResetError("the client has left")
        state = await orm(_state, self._build)
        if state not in (Build.State.QUEUED, Build.State.RUNNING):
            while await self._pass_on():
                pass
            if not self._over:
                await self._lines.fail("the build was lost")
                self._over = True
        elif state == Build.State.QUEUED:
            try:
                await expected(self._operation)
            except QueueAway as error:
                # It stays queued, and the client is told.
                await self._lines.fail(message_of(error))
                self._over, self.away = True, error
                return
            if not self._lines.begun:
                await self._lines.send({"stream": "The build waits for a free worker\n"})


def _state(made: Build) -> str:
    """Empty for one that was removed."""
    return Build.objects.filter(pk=made.pk).values_list("state", flat=True).first() or ""


_watchers: dict[asyncio.AbstractEventLoop, FolderWatcher] = {}


def watcher() -> FolderWatcher:
    """This loop's."""
    loop = asyncio.get_running_loop()
    if loop not in _watchers:
        _watchers.clear()
        _watchers[loop] = FolderWatcher()
    return _watchers[loop]
