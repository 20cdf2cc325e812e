"""Execs and attach on the real conmon: exits apart, stdin, terminals, the brake."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from pathlib import Path

import pytest

from engine.containers.attach import Attach
from engine.containers.exec import Exec, ExecRequest, Execs
from engine.containers.lifecycle import Exit
from engine.containers.logs import LogReader
from engine.errors import InvalidInput, NotFound, WrongState
from engine.runtime import cgroups, processes
from engine.runtime.inotify import MODIFY, Inotify
from engine.runtime.processes import wait
from tests.machine import Machine


@pytest.fixture
def execs(machine: Machine) -> Execs:
    return Execs(machine.config, machine.runtime)


@pytest.fixture
def running(machine: Machine) -> str:
    id = machine.create("echo up; sleep 88", env=("GREETING=hi",), user="app")
    machine.start(id)
    return id


def shell(script: str, **changes: object) -> ExecRequest:
    return ExecRequest(args=("/bin/sh", "-c", script), **changes)  # type: ignore[arg-type]


def ended(which: Exec) -> Exit:
    supervisor = which.supervisor()
    assert supervisor is None or supervisor.wait(10)
    found = which.exit()
    assert found is not None
    return found


def test_an_execs_end_is_not_its_containers(machine: Machine, execs: Execs, running: str) -> None:
    for code in (0, 3):
        made = execs.start(running, shell(f"echo out; echo err >&2; exit {code}"))
        assert (ended(made).code, ended(made).lost) == (code, False)
        with LogReader(made.log) as reader:
            lines = reader.read_lines(0)[0]
        assert {(line.stream, line.text) for line in lines} == {
            ("stdout", b"out"),
            ("stderr", b"err"),
        }
    assert machine.containers.exit_of(running, 1) is None
    assert machine.containers.observe(running).running
    assert len(execs.list(running)) == 2
    execs.remove(made)
    execs.remove(made)
    assert len(execs.list(running)) == 1 and not made.exits.exists()


def test_it_runs_where_and_as_the_container_does(
    machine: Machine, execs: Execs, running: str
) -> None:
    made = execs.start(
        running, shell('id -u; pwd; echo "$GREETING $MORE"; grep -c . /proc/1/status')
    )
    assert ended(made).code == 0
    assert machine.log(made.log).splitlines()[:3] == [b"1000", b"/", b"hi "]
    made = execs.start(
        running,
        shell('id -u; pwd; echo "$GREETING $MORE"', user="0", working_dir="/tmp", env=("MORE=x",)),
    )
    ended(made)
    assert machine.log(made.log).splitlines() == [b"0", b"/tmp", b"hi x"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (ExecRequest(args=("/no/such",)), 127),
        (ExecRequest(args=("nosuch",), tty=True), 127),
        (ExecRequest(args=("/etc/passwd",), user="0"), 126),
        (ExecRequest(args=()), None),
        (ExecRequest(args=("true",), user="ghost"), None),
    ],
)
def test_what_cannot_run_leaves_nothing(
    machine: Machine, execs: Execs, running: str, request_: ExecRequest, code: int | None
) -> None:
    with pytest.raises(InvalidInput) as caught:
        execs.start(running, request_)
    assert caught.value.context.get("code") == code
    assert execs.list(running) == []
    assert not list(machine.config.exits_dir.glob("exec.*"))
    assert machine.containers.observe(running).running


def test_no_exec_without_a_running_container(machine: Machine, execs: Execs) -> None:
    with pytest.raises(NotFound):
        execs.start("e" * 64, shell("true"))
    id = machine.create("exit 0")
    with pytest.raises(WrongState):
        execs.start(id, shell("true"))
    machine.start(id)
    machine.finish(id)
    with pytest.raises(WrongState):
        execs.start(id, shell("true"))


def test_very_short_execs_on_a_terminal_and_without(
    machine: Machine, execs: Execs, running: str
) -> None:
    for number in range(16):
        made = execs.start(running, shell("echo first; exit 9", tty=bool(number % 2)))
        assert (ended(made).code, ended(made).lost) == (9, False)
        assert machine.log(made.log).strip() == b"first"


def test_a_terminal_has_its_size_at_once_and_types(
    machine: Machine, execs: Execs, running: str
) -> None:
    made = execs.start(
        running,
        shell("stty size; read x; echo got $x; stty size", tty=True, stdin=True, size=(99, 33)),
    )
    machine.wait_for_log(made.log, b"33 99")
    made.resize(80, 24)

    async def type_() -> None:
        attached = await Attach.open(made.folder)
        reading = asyncio.create_task(attached.drain())
        await attached.write("한글\n".encode())
        await asyncio.wait_for(reading, 5)
        attached.close()

    asyncio.run(type_())
    assert ended(made).code == 0
    assert machine.log(made.log) == "33 99\r\n한글\r\ngot 한글\r\n24 80\r\n".encode()
    with pytest.raises(WrongState):
        made.resize(80, 24)
    with pytest.raises(WrongState):
        asyncio.run(Attach.open(made.folder))


def test_stdin_is_whole_and_ends_once(machine: Machine, execs: Execs, running: str) -> None:
    made = execs.start(
        running, shell("cat > /tmp/in; md5sum < /tmp/in", stdin=True, stdin_once=True)
    )
    data = os.urandom(1 << 20)

    async def feed() -> None:
        attached = await Attach.open(made.folder)
        reading = asyncio.create_task(attached.drain())
        await attached.write(data)
        attached.end_input()
        await asyncio.wait_for(reading, 10)
        attached.close()

    asyncio.run(feed())
    assert ended(made).code == 0
    assert machine.log(made.log).split()[0] == hashlib.md5(data).hexdigest().encode()


def test_input_stays_open_when_a_client_leaves(machine: Machine) -> None:
    id = machine.create("while read x; do echo got $x; done", open_stdin=True)
    machine.start(id)
    for word in (b"one", b"two"):
        machine.type(id, word + b"\n")
        machine.wait_for(id, b"got " + word)
    machine.containers.stop(id, 1, signal.SIGKILL, 0)


def test_the_brake_holds_the_program_and_loses_nothing(machine: Machine) -> None:
    id = machine.create("read x; seq 1 150000; echo done", tty=True, open_stdin=True)
    machine.start(id)
    log = machine.directory(id).log

    async def follow() -> int:
        attached = await Attach.open(machine.directory(id).bundle)
        release: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        holding = asyncio.Event()
        seen = 0

        def paced(count: int) -> asyncio.Future[None] | None:
            nonlocal seen
            seen += count
            if seen <= 50_000:
                return None
            holding.set()
            return release

        reading = asyncio.create_task(attached.drain(paced))
        await attached.write(b"\n")
        await asyncio.wait_for(holding.wait(), 20)
        # Held: what conmon can still put into our socket's buffer, and no more.
        with Inotify() as watch:
            watch.add(log, MODIFY)
            while await asyncio.to_thread(wait, watch.fileno(), 1.0):
                watch.read()
        held = len(machine.log(log))
        release.set_result(None)
        await asyncio.wait_for(reading, 30)
        attached.close()
        return held

    held = asyncio.run(follow())
    assert 50_000 < held < 800_000, held
    assert machine.finish(id).code == 0
    words = machine.log(log).split()
    assert words == [*(b"%d" % n for n in range(1, 150_001)), b"done"]


def test_a_viewer_that_stops_reading_hides_no_exit(machine: Machine) -> None:
    id = machine.create("read x; seq 1 1000000", tty=True, open_stdin=True)
    machine.start(id)
    stalled = Attach.connect(machine.directory(id).bundle)
    stalled.setblocking(True)
    stalled.send(b"\n")
    log = machine.directory(id).log
    with LogReader(log) as reader, Inotify() as watch:
        watch.add(log, MODIFY)
        while wait(watch.fileno(), 0.3):  # until conmon hangs in its write to us
            watch.read()
        assert 0 < reader.bounds()[1] < 10_000_000
    # conmon cannot report any more: stop gives it some seconds, then ends it.
    machine.containers.stop(id, 1, signal.SIGKILL, 0)
    ended = machine.finish(id)
    assert (ended.code, ended.lost) == (137, True)
    stalled.close()


def test_an_exec_ends_with_its_container(machine: Machine, execs: Execs, running: str) -> None:
    made = execs.start(running, shell("sleep 87"))
    machine.containers.stop(running, 1, signal.SIGKILL, 0)
    assert ended(made).code == 137
    machine.finish(running)
    machine.start(running, 2)
    assert execs.list(running) == [] and not made.exits.exists()


def test_a_killed_exec_and_a_lost_one(machine: Machine, execs: Execs, running: str) -> None:
    made = execs.start(running, shell("trap '' TERM; sleep 86"))
    assert made.exit() is None
    assert made.signal(signal.SIGKILL)
    assert ended(made).code == 137 and not made.signal(signal.SIGKILL)
    made = execs.start(running, shell("sleep 85", tty=True))
    supervisor = made.supervisor()
    assert supervisor is not None
    supervisor.send(signal.SIGKILL)
    assert ended(made).lost
    execs.remove(made)
    assert not processes.find("sleep", "85")


def test_an_exec_lives_in_the_containers_cgroup(
    machine: Machine, execs: Execs, running: str
) -> None:
    made = execs.start(running, shell("sleep 84"))
    _, init = made.attempt.processes()
    assert init is not None and init.pid in cgroups.pids(machine.runtime.cgroup(running))
    assert Path(f"/proc/{init.pid}/status").read_text().count("Seccomp:\t2") == 1
    execs.end(made)
