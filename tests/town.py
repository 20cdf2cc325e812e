"""A town under test: the site, its registry, two containers that must not notice anything, and
pages that are open on one of them. Faults are done to it in e2e/test_faults.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import aiohttp

from engine.network.spec import PortBinding
from tests.box_site import Box, BoxSite
from tests.registry_faults import FaultyRegistry
from tests.site import Site
from tests.sockets import Person, Socket, signed_in

SETTLED_SECONDS = 45.0
BLOB = 3 * 1024 * 1024


async def eventually(
    look: Callable[[], Any], seconds: float = SETTLED_SECONDS, every: float = 0.05
) -> Any:
    """What `look` gives, once it is true; it runs in a thread. AssertionError with the last."""
    deadline = time.monotonic() + seconds
    while not (found := await asyncio.to_thread(look)):
        assert time.monotonic() < deadline, (look, found)
        await asyncio.sleep(every)
    return found


class Town:
    """The site under test, its registry, and the two containers that must not notice anything."""

    def __init__(self, box: BoxSite, faulty: FaultyRegistry, witnesses: dict[str, Box], port: int):
        self.box = box
        self.site = box.site
        self.faulty = faulty
        self.ticker, self.server = witnesses["ticker"], witnesses["server"]
        self.port = port
        self.untouched = self.standing()

    def standing(self) -> Any:
        """Of the witnesses: state, start, generation, process."""
        return self.box.call(
            "result = [[c.name, c.state, c.generation, c.pid, str(c.started_at)]"
            " for c in Container.objects.filter(pk__in=pks).order_by('pk')]",
            pks=[self.ticker.pk, self.server.pk],
        )

    def answers(self) -> bool:
        with urlopen(f"http://127.0.0.1:{self.port}/", timeout=5) as page:
            return bool(page.read() == b"here\n")

    # ---- asked for, not waited for

    def start(self, name: str, script: str, **settings: Any) -> int:
        """A container's run, submitted; its operation."""
        made: int = self.box.call(
            """
            request = ContainerRequest(image="box", command=["sh", "-c", script], **settings)
            made, operation = container_run(namespace, request, "user:1")
            result = operation.pk
            """,
            script=script,
            settings={"name": name, **settings},
        )
        return made

    def build(self, dockerfile: str, tag: str) -> tuple[int, int]:
        """(build, operation), submitted."""
        made = self.box.call(
            """
            from engine.services.builds import build_create
            build, operation = build_create(
                namespace, actor="user:1", tag=tag, dockerfile=dockerfile
            )
            result = [build.pk, operation.pk]
            """,
            tag=tag,
            dockerfile=dockerfile,
        )
        return made[0], made[1]

    def pull(self, name: str) -> int:
        made: int = self.box.call(
            "from engine.services.images import image_pull\n"
            "result = image_pull(namespace, name, 'user:1').pk",
            name=name,
        )
        return made

    def operation(self, pk: int) -> dict[str, Any]:
        found: dict[str, Any] = self.box.call(
            "o = Operation.objects.get(pk=pk); "
            "result = {'state': o.state, 'attempt': o.attempt, 'error': o.error}",
            pk=pk,
        )
        return found

    def container(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.box.call(
            "c = Container.objects.get(name=name); result = {'state': c.state, 'pid': c.pid,"
            " 'exit_code': c.exit_code, 'error': c.error, 'generation': c.generation,"
            " 'uid': c.uid, 'pk': c.pk}",
            name=name,
        )
        return found

    async def ended(self, *operations: int, state: str = "done") -> None:
        """All of them, in `state`."""
        for pk in operations:
            await eventually(lambda pk=pk: self.operation(pk)["state"] not in ("queued", "running"))
            assert (found := self.operation(pk))["state"] == state, found

    async def agrees(self) -> None:
        """Rows, disk and kernel, within the bound; the witnesses as they were."""
        deadline = time.monotonic() + SETTLED_SECONDS
        source = "from tests.agreement import disagreements\nresult = disagreements()"
        while left := await asyncio.to_thread(self.box.call, source):
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.2)
        await eventually(self.serves)
        assert self.standing() == self.untouched
        assert await asyncio.to_thread(self.answers)

    def serves(self) -> bool:
        """engined takes streams; a killed one leaves a socket that nobody listens on."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            return not probe.connect_ex(str(self.site.home / "run" / "engined.sock"))

    def build_log(self, build: int) -> list[dict[str, Any]]:
        try:
            text = (self.site.home / "builds" / str(build) / "log.jsonl").read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines()]

    def blob_half_there(self) -> bool:
        parts = (self.site.home / "content" / "ingests").glob("**/*")
        return any(part.is_file() and part.stat().st_size > BLOB // 50 for part in parts)

    def remove_new(self) -> None:
        """All containers but the witnesses."""
        self.box.call(
            """
            for made in Container.objects.exclude(pk__in=pks):
                done(container_remove(made, "user:1", force=True))
            """,
            pks=[self.ticker.pk, self.server.pk],
        )


@dataclass
class Follower:
    """A log followed as a page does it: from the offset it has, again whenever the socket ends."""

    person: Person
    uid: str
    log: bytearray = field(default_factory=bytearray)
    sockets: int = 0
    messages: list[Any] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The number of the last whole `tick N` line."""
        lines = self.log.rpartition(b"\n")[0].splitlines()
        return int(lines[-1].split()[-1]) if lines else -1

    async def reaches(self, tick: int) -> None:
        deadline = time.monotonic() + SETTLED_SECONDS
        while self.last < tick:
            assert time.monotonic() < deadline, (self.sockets, self.last, tick, self.messages)
            await asyncio.sleep(0.05)

    async def run(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                async with self.person.socket(f"/ws/logs/{self.uid}/?from={len(self.log)}") as ws:
                    self.sockets += 1
                    ws.messages = self.messages
                    await self._read(ws)
            await asyncio.sleep(0.1)

    async def _read(self, socket: Socket) -> None:
        while await socket.take():
            for offset, data in socket.frames:
                assert offset == len(self.log), (offset, len(self.log))
                self.log += data
                await socket.send(t="ack", offset=len(self.log))
            socket.frames.clear()

    def whole(self) -> bool:
        """No line lost, none doubled."""
        lines = self.log.rpartition(b"\n")[0].decode().splitlines()
        return [line.split(" ", 3)[3] for line in lines] == [f"tick {n}" for n in range(len(lines))]


@dataclass
class Shell:
    """An exec's terminal, opened again at its offset whenever the socket ends."""

    person: Person
    session: str
    socket: Socket
    stack: contextlib.AsyncExitStack
    sockets: int = 1
    asked: int = 0

    @classmethod
    async def open(cls, person: Person, session: str) -> Self:
        stack = contextlib.AsyncExitStack()
        return cls(person, session, await cls._enter(person, session, -1, stack), stack)

    @staticmethod
    async def _enter(
        person: Person, session: str, seen: int, stack: contextlib.AsyncExitStack
    ) -> Socket:
        ws = await stack.enter_async_context(person.socket(f"/ws/terminals/{session}/?seen={seen}"))
        await ws.until(lambda s: s.of("hello") or s.of("end"))
        if not ws.of("hello"):
            raise ConnectionResetError(str(ws.of("end")))
        await ws.send(t="resize", cols=80, rows=24)
        return ws

    async def answers(self) -> None:
        """The shell computes something new; over a new socket if the one before has ended."""
        self.asked += 1
        wanted = f"is {self.asked * 7}\r\n".encode()
        deadline = time.monotonic() + SETTLED_SECONDS
        while True:
            try:
                await self.socket.type(f"echo is $(({self.asked}*7))\r".encode())
                async with asyncio.timeout(10):
                    while wanted not in self.socket.bytes and await self.socket.take():
                        pass
                if wanted in self.socket.bytes:
                    return
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                pass
            while True:
                assert time.monotonic() < deadline, (self.socket.messages, self.socket.bytes)
                await asyncio.sleep(0.1)
                seen = self.socket.frames[-1][0] if self.socket.frames else -1
                try:
                    before, self.stack = self.stack, contextlib.AsyncExitStack()
                    await before.aclose()
                    self.socket = await self._enter(self.person, self.session, seen, self.stack)
                except (aiohttp.ClientError, ConnectionError, AssertionError):
                    continue
                self.sockets += 1
                break


@dataclass
class Busy:
    """Everything in the middle of something."""

    town: Town
    name: str
    follower: Follower
    shell: Shell
    build: int
    operations: list[int]
    starts: list[str] = field(default_factory=list)

    def begin_starts(self) -> None:
        for n in range(4):
            name = f"{self.name}-{n}"
            ports = (PortBinding(80, "tcp", "127.0.0.1", 0),) if n % 2 else ()
            self.operations.append(self.town.start(name, "sleep 600", ports=ports))
            self.starts.append(name)

    def stage_reached(self, file: str) -> None:
        """Return the moment that one of the starts has come to its `file`; "" is its folder."""
        exits = self.town.site.home / "exits"
        uids = {self.town.container(name)["uid"] for name in self.starts}
        deadline = time.monotonic() + 20
        while not any((exits / f"{uid}.1" / file).exists() for uid in uids):
            assert time.monotonic() < deadline, f"no start came to {file}"


@asynccontextmanager
async def busy(town: Town, name: str) -> AsyncIterator[Busy]:
    town.faulty.rule("/blobs/", rate=BLOB // 40)
    session = town.box.terminal(town.ticker)
    async with signed_in(town.site.url) as person, asyncio.TaskGroup() as tasks:
        follower = Follower(person, town.ticker.uid)
        following = tasks.create_task(follower.run())
        shell = await Shell.open(person, session)
        await shell.answers()
        pull = town.pull(name)
        build, operation = town.build(
            f"FROM base\nRUN echo {name} > /made\nRUN echo begins; sleep 2.5; cat /made\n", name
        )
        made = Busy(town, name, follower, shell, build, [pull, operation])
        await eventually(lambda: '"begins' in json.dumps(town.build_log(build)))
        await eventually(town.blob_half_there)
        assert town.operation(pull)["state"] == "running"
        made.begin_starts()
        yield made
        shell.stack.push_async_callback(asyncio.sleep, 0)
        await shell.stack.aclose()
        following.cancel()


def kill(site: Site, program: str, which: str = "main") -> int:
    """kill -9 of the process that supervisord started (main), of its first child, or of all; the
    pid that supervisord knew."""
    pids = site.pids(program)
    for pid in {"main": pids[:1], "child": pids[1:2], "all": pids}[which]:
        os.kill(pid, signal.SIGKILL)
    return pids[0]


async def again(site: Site, program: str, before: int) -> None:
    """supervisord has started it anew."""

    def look() -> bool:
        pid = int(site.supervisorctl("pid", program))
        return pid not in (0, before) and Path(f"/proc/{pid}").exists()

    await eventually(look, 20)
