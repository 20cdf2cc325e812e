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
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from engine.network.spec import PortBinding
from engine.runtime.processes import ProcessRef
from tests.box_site import BoxSite
from tests.registry import push_image, running_registry, tar_of
from tests.registry_faults import faulty_registry
from tests.rootfs import make_rootfs
from tests.site import free_port, running_site
from tests.sockets import Socket, signed_in
from tests.town import BLOB, SETTLED_SECONDS, Follower, Shell, Town, again, busy, eventually, kill

START_SECONDS = 10.0
TICKS = "i=0; while true; do echo tick $i; i=$((i+1)); sleep 0.05; done"


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
            assert log.of("exit") == {"t": "exit", "code": 137, "by_hand": False}
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
