"""What nobody looks at any more: a left shell is hung up, a stubborn one killed, rows are ended."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.containers.exec import ExecRequest, Execs
from engine.containers.watch import FolderWatcher
from engine.streams.terminal import Place, Terminal
from tests.machine import Machine


@asynccontextmanager
async def terminal_of(machine: Machine, *args: str) -> AsyncIterator[Terminal]:
    id = machine.create("sleep 600")
    machine.start(id)
    execs = Execs(machine.config, machine.runtime)
    made = await asyncio.to_thread(execs.start, id, ExecRequest(args, tty=True, stdin=True))
    watcher = FolderWatcher()
    terminal = Terminal(
        Place(made.folder, made.log, made.attempt), tty=True, stdin=True, watcher=watcher
    )
    terminal.start_watching()
    try:
        await asyncio.to_thread(machine.wait_for_log, made.log, b"ready")
        yield terminal
    finally:
        terminal.stop_watching()
        await asyncio.to_thread(execs.end, made)
        watcher.close()


async def ended(terminal: Terminal) -> int | None:
    async with asyncio.timeout(10):
        await terminal.end_seen.wait()
    assert terminal.ended is not None
    return terminal.ended.code


async def test_a_shell_takes_the_hang_up(machine: Machine) -> None:
    async with terminal_of(machine, "sh", "-c", "echo ready; cat") as terminal:
        terminal.signal(signal.SIGHUP)
        assert await ended(terminal) == 129


async def test_conmon_lost_ends_the_process_and_says_so(machine: Machine) -> None:
    async with terminal_of(machine, "sh", "-c", "echo ready; cat") as terminal:
        conmon, init = terminal.place.attempt.processes()
        assert conmon and init
        conmon.send(signal.SIGKILL)
        await ended(terminal)
        assert terminal.ended and terminal.ended.lost
        assert await asyncio.to_thread(init.wait, 10)


async def test_the_sweep_hangs_up_then_kills_then_forgets(machine: Machine) -> None:
    """Terminals' clock, moved by hand: its constants are minutes."""
    from engine.streams import terminals

    script = "trap '' HUP; echo ready; while true; do sleep 1; done"
    async with terminal_of(machine, "sh", "-c", script) as terminal:
        all_terminals = terminals.Terminals.__new__(terminals.Terminals)
        all_terminals._terminals, all_terminals._left = {"session": terminal}, {}
        now = terminal.left_at + terminals.LEFT_SECONDS
        all_terminals._sweep("session", terminal, now - 1)
        assert not all_terminals._left
        all_terminals._sweep("session", terminal, now + 1)
        assert "session" in all_terminals._left and not terminal.ended
        all_terminals._sweep("session", terminal, now + terminals.HUNG_UP_SECONDS + 2)
        assert await ended(terminal) == 137
        all_terminals._sweep("session", terminal, now + terminals.HUNG_UP_SECONDS + 3)
        assert not all_terminals._terminals
