"""One running terminal: a container's main process or an exec, and all who look at it.

Output is read from the log by offset, each viewer for itself. What they share is here: the
attach socket (stdin, and the brake), the size (the smallest of all), and how it ended. Who may
have one, and when one begins, is terminals.py's.

The brake: conmon waits for a client that does not read. So while a viewer has hands on a tty,
our own attach socket is read only as fast as that viewer's page draws, and a program that
floods waits instead of running megabytes ahead. It is let go after BRAKE_SECONDS without an
acknowledgement, and at the process's own end, so that it hides no exit.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.containers.attach import Attach
from engine.containers.attempts import Attempt
from engine.containers.ends import until_end
from engine.containers.logs import LogReader
from engine.containers.watch import FolderWatcher
from engine.errors import WrongState
from engine.runtime import conmon
from engine.streams.window import WINDOW, Window

logger = logging.getLogger(__name__)

BRAKE_SECONDS = 2.0
# A size is set twice with this between, so that a program that redraws on SIGWINCH does.
NUDGE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Ended:
    """`offset`: where the process's output ends in its log. `lost`: conmon died; without a code
    and not lost, its files went before it could be read."""

    code: int | None
    offset: int
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process's files lie (engine.containers.layout).

    `following` is the start after this one, for a container's main process: all its starts
    append to one log, and this one's output ends where that one's begins."""

    bundle: Path
    log: Path
    attempt: Attempt
    following: Attempt | None = None

    def floor(self, reader: LogReader) -> int:
        """Where its output begins."""
        started = self.attempt.started() if self.following else None
        return reader.seek_time(started.started_at) if started else reader.bounds()[0]

    def ceiling(self, reader: LogReader) -> int:
        """Where its output ends, once it has ended."""
        started = self.following.started() if self.following else None
        return reader.seek_time(started.started_at) if started else reader.bounds()[1]


class Viewer:
    """One reader: its window on the log, its size, and since when it has not kept up."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.size: tuple[int, int] | None = None
        self.wake = asyncio.Event()
        self.moved = asyncio.get_running_loop().time()

    def ack(self, offset: int) -> None:
        self.window.ack(offset)
        self.moved = asyncio.get_running_loop().time()


class Terminal:
    """`start_watching` once it runs; `stop_watching` when engined stops or it is forgotten."""

    def __init__(self, place: Place, *, tty: bool, stdin: bool, watcher: FolderWatcher) -> None:
        self.place = place
        self.tty = tty
        self.stdin = stdin
        self.ended: Ended | None = None
        self.left_at = asyncio.get_running_loop().time()
        self.end_seen = asyncio.Event()
        self._watcher = watcher
        self._viewers: set[Viewer] = set()
        self._size: tuple[int, int] | None = None
        self._attach: Attach | None = None
        self._holding: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._writing = asyncio.Lock()
        self._gone = False

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    # ---- its end

    @property
    def watching(self) -> bool:
        return self._watching is not None

    def start_watching(self) -> None:
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Until the exit code is there, or conmon is gone without leaving one."""
        attempt = self.place.attempt
        exit = (await until_end(self._watcher, attempt, dying=self._let_go)).exit
        with LogReader(self.place.log) as reader:
            offset = self.place.ceiling(reader)
        if exit is not None:
            self.ended = Ended(exit.code, offset, exit.lost)
        else:
            self.ended = Ended(None, offset, lost=attempt.begun)
        if self.ended.lost:
            # Without conmon nobody reads its pty any more, nor would see its end.
            self.signal(signal.SIGKILL)
        self.end_seen.set()
        self._let_go()
        for viewer in self._viewers:
            viewer.wake.set()

    def _let_go(self) -> None:
        """The process has ended: conmon must be able to say so."""
        self._gone = True
        self._moved.set()

    def signal(self, number: int) -> None:
        """For the process itself, if it is still there."""
        _, init_ref = self.place.attempt.processes()
        if init_ref is not None:
            init_ref.send(number)

    # ---- those who look

    @contextmanager
    def looking(self, viewer: Viewer) -> Iterator[None]:
        """Count `viewer` in. With nobody left the attach socket goes too."""
        self._viewers.add(viewer)
        try:
            yield
        finally:
            self._viewers.discard(viewer)
            self._moved.set()
            self.left_at = asyncio.get_running_loop().time()
            if not self._viewers:
                self._release()
            else:
                self.resize()

    def resize(self) -> None:
        """The smallest size of all; told to the viewers by `size`, to the pty at once."""
        sizes = [viewer.size for viewer in self._viewers if viewer.size]
        if not sizes or not self.tty or self.ended:
            return
        size = (min(cols for cols, _ in sizes), min(rows for _, rows in sizes))
        if size != self._size:
            self._size = size
            self._set_size(*size)
            for viewer in self._viewers:
                viewer.wake.set()

    @property
    def size(self) -> tuple[int, int] | None:
        return self._size

    async def nudge(self) -> None:
        """Have the program draw itself anew: a size it does not have, then its own again."""
        if self._size is None or not self.tty or self.ended:
            return
        cols, rows = self._size
        self._set_size(cols, max(1, rows - 1))
        await asyncio.sleep(NUDGE_SECONDS)
        self._set_size(*self._size)

    def _set_size(self, cols: int, rows: int) -> None:
        try:
            conmon.resize(self.place.bundle, cols, rows)
        except WrongState:
            pass  # it ends just now: the watch says so

    # ---- stdin and the brake

    async def write(self, data: bytes) -> None:
        """stdin. Waits while the program does not read; lost when it has ended."""
        if not self.stdin or self.ended:
            return
        try:
            async with self._writing:
                await (await self._attached()).write(data)
        except WrongState:
            pass  # it has ended or closed its input: nothing takes this any more

    async def end_input(self) -> None:
        """The end of stdin, for those without a tty (with one it is ^D, a byte like others)."""
        if self.stdin and not self.tty and not self.ended:
            try:
                (await self._attached()).end_input()
            except WrongState:
                pass  # it has ended already

    async def hold(self) -> None:
        """Attach, so that the brake works from the first byte on. Nothing if it has ended."""
        try:
            await self._attached()
        except WrongState:
            pass  # too short a life: its log has all of it

    async def _attached(self) -> Attach:
        if self._attach is None:
            self._attach = await Attach.open(self.place.bundle)
            self._holding = asyncio.create_task(self._hold(self._attach))
        return self._attach

    async def _hold(self, attach: Attach) -> None:
        """Read and discard what the attach socket brings, at the slowest viewer's pace."""
        with LogReader(self.place.log) as reader:
            while await attach.read():
                if self.tty:
                    await self._brake(reader)

    async def _brake(self, reader: LogReader) -> None:
        loop = asyncio.get_running_loop()
        while not self.ended and not self._gone:
            end, now = reader.bounds()[1], loop.time()
            holding = []
            for viewer in self._viewers:
                if end - viewer.window.acked <= WINDOW:
                    viewer.moved = now
                elif viewer.moved + BRAKE_SECONDS > now:
                    holding.append(viewer.moved + BRAKE_SECONDS)
            if not holding:
                return
            self._moved.clear()
            try:
                async with asyncio.timeout_at(min(holding)):
                    await self._moved.wait()
            except TimeoutError:
                pass  # that viewer's page is asleep: nobody waits for it

    def acked(self, viewer: Viewer, offset: int) -> None:
        viewer.ack(offset)
        self._moved.set()

    def _release(self) -> None:
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None
        if self._attach is not None:
            self._attach.close()
            self._attach = None

    async def settled(self) -> None:
        """If it has ended already, wait until that is known here too."""
        if self.watching and self.place.attempt.exit() is not None:
            await self.end_seen.wait()

    def stop_watching(self) -> None:
        """Let go of everything; the process goes on."""
        self._release()
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
