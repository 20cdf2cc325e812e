"""Faults: kill -9 of each of our processes while all of them have work, then agreement.

Before each fault a build is in the middle of a RUN step, a pull in the middle of a blob, containers
are starting, a terminal and a log are open. Afterwards supervisord has started again what died,
everything asked for has come to its end, rows, disk and kernel agree (tests.agreement), and two
containers that ran all the while were not touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import aiohttp
import pytest

from engine.network.spec import PortBinding
from engine.runtime.processes import ProcessRef
from tests.box_site import Box, BoxSite
from tests.registry import push_image, running_registry, tar_of
from tests.registry_faults import FaultyRegistry, faulty_registry
from tests.rootfs import make_rootfs
from tests.site import Site, free_port, running_site
from tests.sockets import Person, Socket, signed_in

SETTLED_SECONDS = 45.0
START_SECONDS = 10.0
BLOB = 3 * 1024 * 1024
TICKS = "i=0; while true; do echo tick $i; i=$((i+1)); sleep 0.05; done"


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


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    with (
        running_registry(folder) as registry,
        faulty_registry(registry.address) as faulty,
        running_site(QUAYSIDE_REGISTRY_MIRRORS=f"docker.io={faulty.url}") as site,
    ):
        push_image(registry, "library/base", layers=[make_rootfs(folder / "rootfs")])
        for name in (*VICTIMS, "ctrl-c"):
            layers = [tar_of({f"{name}-{n}": os.urandom(BLOB)}) for n in range(2)]
            push_image(registry, f"library/{name}", layers=layers)
        box = BoxSite(site)
        port = free_port()
        try:
            served = "mkdir /www; echo here > /www/index.html; exec httpd -f -p 80 -h /www"
            witnesses = {
                "ticker": box.run(TICKS, name="ticker"),
                "server": box.run(
                    served, name="server", ports=(PortBinding(80, "tcp", "127.0.0.1", port),)
                ),
            }
            made = Town(box, faulty, witnesses, port)
            asyncio.run(made.ended(made.pull("base")))
            yield made
        finally:
            box.close()


@pytest.fixture(autouse=True)
def _clear(town: Town) -> Iterator[None]:
    town.faulty.clear()
    yield
    town.faulty.clear()
    town.remove_new()


# ---- what is open meanwhile


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


# program, which of its processes, and where the starts are when it is killed
VICTIMS = {
    "web-launcher": ("web", "main", ""),
    "web-all": ("web", "all", ""),
    "engined": ("engined", "main", "started.json"),
    "streams": ("engined", "child", ""),
    "redis": ("redis", "main", ""),
    "builds": ("worker-builds", "main", ""),
    "containers-begun": ("worker-containers", "main", ""),
    "containers-made": ("worker-containers", "main", "conmon.pid"),
    "containers-started": ("worker-containers", "main", "started.json"),
}


@pytest.mark.parametrize("victim", VICTIMS)
async def test_killed_in_the_middle_of_everything(town: Town, victim: str) -> None:
    program, which, stage = VICTIMS[victim]
    async with busy(town, victim) as at_work:
        await asyncio.to_thread(at_work.stage_reached, stage)
        seen = at_work.follower.last
        pid = kill(town.site, program, which)
        town.faulty.clear()
        await again(town.site, program, pid)

        # Everything asked for comes to be, by whoever takes over.
        await town.ended(*at_work.operations)
        for name in at_work.starts:
            assert town.container(name)["state"] == "running"
        log = town.build_log(at_work.build)
        assert log[-1]["t"] == "done", log[-1]
        assert [line["t"] for line in log].count("again") == (program == "worker-builds")
        if program == "worker-builds":
            assert any("Range" in request.headers for request in town.faulty.requests("/blobs/"))

        # Terminal and log go on where they were; over the same socket unless web or engined died.
        await at_work.shell.answers()
        await at_work.follower.reaches(seen + 20)
        assert at_work.follower.whole()
        if program not in ("web", "engined"):
            assert (at_work.shell.sockets, at_work.follower.sockets) == (1, 1)
        await town.agrees()


async def test_a_start_whose_row_was_never_written_is_found_running(town: Town) -> None:
    """The worker dies between `runc start` and the row: a lock on the database holds it there."""
    with contextlib.closing(
        sqlite3.connect(town.site.home / "db" / "quayside.sqlite3", isolation_level=None)
    ) as database:
        operation = town.start("unwritten", "sleep 600")
        uid = town.container("unwritten")["uid"]
        attempt = town.site.home / "exits" / f"{uid}.1"
        waiting = town.site.home / "run" / "runtime" / uid / "exec.fifo"
        await eventually(attempt.exists, every=0.001)
        database.execute("BEGIN IMMEDIATE")
        await eventually(
            lambda: (attempt / "started.json").exists() and not waiting.exists(), every=0.001
        )
        pid = json.loads((attempt / "started.json").read_text())["init_pid"]
        kill(town.site, "worker-containers")
        database.execute("ROLLBACK")
    await town.ended(operation)
    found = town.container("unwritten")
    assert (found["state"], found["generation"], found["pid"]) == ("running", 1, pid)
    await town.agrees()


async def test_stops_restarts_and_removals_are_done_once(town: Town) -> None:
    """Worker and engined die among them; `--rm` containers that end meanwhile go too."""
    stopping = town.box.run("trap 'sleep 1; exit 5' TERM; while :; do sleep 0.05; done")
    restarting = town.box.run("trap 'exit 0' TERM; while :; do sleep 0.05; done")
    removing = [town.box.run("sleep 600") for _ in range(3)]
    leaving = [town.box.run(f"sleep 0.{n + 1}", auto_remove=True) for n in range(4)]
    operations = town.box.call(
        """
        found = {c.pk: c for c in Container.objects.all()}
        asked = [
            container_stop(found[stopping], "user:1"),
            container_restart(found[restarting], "user:1"),
            *(container_remove(found[pk], "user:1", force=True) for pk in removing),
        ]
        result = [operation.pk for operation in asked]
        """,
        stopping=stopping.pk,
        restarting=restarting.pk,
        removing=[box.pk for box in removing],
    )
    await eventually(lambda: town.operation(operations[0])["state"] == "running", every=0.005)
    pids = [(program, kill(town.site, program)) for program in ("worker-containers", "engined")]
    for program, pid in pids:
        await again(town.site, program, pid)
    await town.ended(*operations)
    assert town.container(stopping.name)["exit_code"] == 5
    found = town.container(restarting.name)
    assert (found["state"], found["exit_code"]) == ("running", None)
    await town.agrees()
    gone = [box.pk for box in (*removing, *leaving)]
    assert town.box.call("result = Container.objects.filter(pk__in=pks).count()", pks=gone) == 0


async def test_a_container_ends_with_its_conmon(town: Town) -> None:
    """On pipes it would die at its next write, on a tty it would run on unseen."""
    boxes = [
        town.box.run(TICKS),
        town.box.run("echo here; sleep 600", tty=True, open_stdin=True),
    ]
    pids = [town.container(box.name)["pid"] for box in boxes]
    async with signed_in(town.site.url) as person, contextlib.AsyncExitStack() as stack:
        logs, shells = [], []
        for box in boxes:
            logs.append(await stack.enter_async_context(person.socket(f"/ws/logs/{box.uid}/")))
            shells.append(await Shell.open(person, town.box.terminal(box)))
            stack.push_async_callback(shells[-1].stack.aclose)
            await shells[-1].answers()
        for box in boxes:
            started = town.site.home / "exits" / f"{box.uid}.1" / "started.json"
            os.kill(json.loads(started.read_text())["conmon_pid"], signal.SIGKILL)
        for box, log, shell, pid in zip(boxes, logs, shells, pids, strict=True):
            await log.until(lambda s: s.of("exit"))
            assert log.of("exit") == {"t": "exit", "code": 137}
            await shell.socket.until(lambda s: s.of("end"))
            end = shell.socket.of("end")
            assert end and end["reason"] == "container-stopped", end
            found = town.container(box.name)
            assert (found["state"], found["exit_code"]) == ("exited", 137)
            assert found["error"]["id"] == "supervisor-lost"
            await eventually(
                lambda pid=pid: not (left := ProcessRef.of(pid)) or not left.alive(), 5
            )
    await town.agrees()
    # Nothing of it is in the way of the next start.
    town.box.operate(boxes[1], "start")
    assert town.container(boxes[1].name)["state"] == "running"
    await town.agrees()


async def test_an_exec_s_end_is_its_own(town: Town) -> None:
    """Ended, killed, or without its conmon; also for an engined that finds it all on disk."""
    before = town.container("ticker")
    async with signed_in(town.site.url) as person:
        for script, signalled in (
            ("exit 3", ""),
            ("sleep 600", "init_pid"),
            ("sleep 600", "conmon_pid"),
        ):
            session = town.box.terminal(town.ticker, "sh", "-c", f"echo up; {script}")
            shell = await Shell.open(person, session)
            await shell.socket.until_bytes(b"up\r\n")
            if signalled:
                started = (
                    town.site.home / "exits" / f"exec.{session.replace('-', '')}" / "started.json"
                )
                os.kill(json.loads(started.read_text())[signalled], signal.SIGKILL)
            await shell.socket.until(lambda s: s.of("end"))
            end = shell.socket.of("end")
            wanted = {"": ("exited", 3), "init_pid": ("exited", 137), "conmon_pid": ("lost", None)}
            assert end and (end["reason"], end["exit_code"]) == wanted[signalled], end
            await shell.stack.aclose()
            assert town.container("ticker") == before
    await again(town.site, "engined", kill(town.site, "engined"))
    await town.agrees()
    assert town.container("ticker") == before


async def test_a_viewer_that_stops_reading_freezes_nobody(town: Town) -> None:
    """Of a terminal that floods, and of its log: the others go on, and the end is not hidden."""
    box = town.box.run(
        "exec yes 0123456789012345678901234567890123456789", tty=True, open_stdin=True
    )
    session = town.box.terminal(box, kind="attach")
    log = town.site.home / "containers" / box.uid / "log"

    def size() -> int:
        return sum(part.stat().st_size for part in log.iterdir())

    async with signed_in(town.site.url) as person, contextlib.AsyncExitStack() as stack:
        stalled = [
            await Shell.open(person, session),
            await stack.enter_async_context(person.socket(f"/ws/logs/{box.uid}/?from=0")),
        ]
        stack.push_async_callback(stalled[0].stack.aclose)
        other = await Shell.open(person, session)
        stack.push_async_callback(other.stack.aclose)
        reader = await stack.enter_async_context(person.socket(f"/ws/logs/{box.uid}/?from=0"))

        async def reads(socket: Socket, amount: int) -> None:
            """As a page does: takes and acknowledges, also what came with a gap."""
            taken, deadline = 0, time.monotonic() + SETTLED_SECONDS
            while taken < amount:
                assert time.monotonic() < deadline, (taken, socket.messages)
                assert await socket.take(), socket.messages
                for offset, data in socket.frames:
                    taken += len(data)
                    end = offset + (0 if socket is other.socket else len(data))
                    await socket.send(t="ack", offset=end)
                socket.frames.clear()

        before = size()
        await asyncio.gather(reads(other.socket, 4 << 20), reads(reader, 4 << 20))
        assert size() - before > 4 << 20
        # Nobody reads at all for a moment: the container goes on, after the brake's two seconds.
        before = size()
        await eventually(lambda: size() > before + (4 << 20), 20)
        asked = time.monotonic()
        town.box.operate(box, "kill")
        await eventually(lambda: town.container(box.name)["state"] == "exited", 5)
        assert time.monotonic() - asked < 5
    await town.agrees()


async def test_without_redis(town: Town) -> None:
    """Terminals, logs, stop and kill go on; starts and builds wait, and come when it is back."""
    stopping, killing = (
        town.box.run("trap 'exit 5' TERM; while :; do sleep 0.05; done"),
        town.box.run(TICKS),
    )
    session = town.box.terminal(town.ticker)
    async with signed_in(town.site.url) as person, asyncio.TaskGroup() as tasks:
        follower = Follower(person, town.ticker.uid)
        following = tasks.create_task(follower.run())
        shell = await Shell.open(person, session)
        await shell.answers()
        town.site.supervisorctl("stop", "redis")
        try:
            start = town.start("waits", "sleep 600")
            _, operation = town.build("FROM base\nRUN echo waited > /made\n", "waited")
            town.box.operate(stopping, "stop")
            town.box.operate(killing, "kill")
            await eventually(lambda: town.container(killing.name)["state"] == "exited")
            assert town.container(stopping.name)["exit_code"] == 5
            assert town.container(killing.name)["exit_code"] == 137
            await shell.answers()
            await follower.reaches(follower.last + 20)
            # A page that opens now, and a terminal, work too.
            async with person.socket(f"/ws/logs/{town.ticker.uid}/?from=-3") as socket:
                await socket.until(lambda s: s.bytes.count(b"tick") >= 5)
            late = await Shell.open(person, town.box.terminal(town.ticker))
            await late.answers()
            await late.stack.aclose()
            assert town.operation(start)["state"] == town.operation(operation)["state"] == "queued"
        finally:
            town.site.supervisorctl("start", "redis")
        await town.ended(start, operation)
        assert town.container("waits")["state"] == "running"
        await shell.answers()
        await shell.stack.aclose()
        following.cancel()
        assert follower.whole()
        assert (shell.sockets, follower.sockets) == (1, 1)
    await town.agrees()


async def test_a_second_instance_lives_beside_it(town: Town) -> None:
    """Another home, port and pool: the same names, nothing shared, nothing left of it."""
    port = free_port()
    with running_site() as other:
        box = BoxSite(other)
        try:
            script = "mkdir /www; echo other > /www/index.html; exec httpd -f -p 80 -h /www"
            ports = (PortBinding(80, "tcp", "127.0.0.1", port),)
            made = box.run(script, name="server", ports=ports)
            with urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                assert page.read() == b"other\n"
            await town.agrees()
            kill(other, "engined")
            source = "from tests.agreement import disagreements\nresult = disagreements()"
            await eventually(lambda: not box.call(source))
            assert box.call("result = Container.objects.get().state") == "running"
            assert box.call(
                "from engine.services.work.host import host\nresult = host().config.instance"
            ) not in str(town.site.home)
            box.operate(made, "remove", force=True)
        finally:
            box.close()
    await town.agrees()


async def test_ctrl_c_and_the_next_start(town: Town) -> None:
    """In the middle of a build and a pull: ours go, containers stay, work that was left is done."""
    town.faulty.rule("/blobs/", rate=BLOB // 40)
    pull = town.pull("ctrl-c")
    build, operation = town.build("FROM base\nRUN echo begins; sleep 600\n", "never")
    await eventually(lambda: '"begins' in json.dumps(town.build_log(build)))
    await eventually(town.blob_half_there)

    asked = time.monotonic()
    await asyncio.to_thread(town.site.stop)
    assert time.monotonic() - asked < 20
    left = [line for line in processes() if str(town.site.home) in line]
    assert not [line for line in left if "conmon" not in line and "aardvark" not in line], left
    assert not [line for line in processes() if "sleep 600" in line and "begins" in line]
    assert await asyncio.to_thread(town.answers)

    town.faulty.clear()
    others = await asyncio.to_thread(slowdown)
    seconds = await asyncio.to_thread(town.site.start)
    others = max(others, await asyncio.to_thread(slowdown))
    assert seconds / others < START_SECONDS, (seconds, others)
    assert town.standing() == town.untouched
    await town.ended(pull)
    await eventually(lambda: any(line["t"] == "again" for line in town.build_log(build)))
    assert town.operation(operation)["attempt"] == 2
    town.box.call(
        "from engine.services.builds import build_cancel\n"
        "build_cancel(Build.objects.get(pk=pk), 'user:1')",
        pk=build,
    )
    await town.ended(operation, state="cancelled")
    await town.agrees()


def slowdown() -> float:
    """How much longer than its processor time work takes here and now: 1.0 on a machine of our
    own. Two at once, as a start has."""
    work = "import time as t; s = t.time()\nwhile t.process_time() < 0.5: pass\nprint(t.time() - s)"
    running = [
        subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.PIPE) for _ in range(2)
    ]
    return max(1.0, *(float(one.communicate()[0]) / 0.5 for one in running))


def processes() -> list[str]:
    """Command lines of all processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found
