"""A client and a process: its output from the log, what is typed to conmon, until one is done.

Output comes from the log by offset, so none is lost or doubled however fast the program is. What is
typed goes through conmon's attach socket, which is opened with the first byte and read all the
time: **conmon waits for a client that does not read**, and with it the program. On a tty that is
used as a brake, so that a flood stops when its reader does; it is let go after BRAKE_SECONDS and at
the process's own end.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from engine.api.hijack import Stream
from engine.api.keys import Escape
from engine.api.source import Run, Source
from engine.containers.attach import Attach
from engine.errors import WrongState

BRAKE_SECONDS = 2.0
BRAKE_BYTES = 256 * 1024


class Left(Enum):
    """Why a conversation ended."""

    ENDED = "the process has ended, all of its output is written"
    CLOSED = "the client closed its input, which ends the conversation as in Docker"
    DETACHED = "the client typed the detach keys"
    GONE = "the client hung up"


@dataclass(frozen=True, slots=True)
class Terms:
    """`stdin`: what the client sends goes to the process. `once`: its half-close is the end of the
    process's input; without that, or on a tty, it is the end of the conversation."""

    bundle: Path
    tty: bool
    stdin: bool
    once: bool
    keys: bytes


async def follow(
    source: Source, run: Run, offset: int, write: Callable[[bytes], Awaitable[None]]
) -> None:
    """Write what comes from `offset` on, until `run` is over and all of it is written."""
    wake = asyncio.Event()
    ceiling: int | None = None
    with source.waking(wake), run.waking(wake):
        while ceiling is None or offset < ceiling:
            wake.clear()
            # First: what it says happened after every byte that is read now.
            over = run.over.is_set()
            if over and ceiling is None:
                # All starts of a container append to one log; the next has not begun yet.
                ceiling = source.end or sys.maxsize  # with --rm it may be gone already
            block = await source.block(offset)
            if block is None and over:
                block = await source.block(offset, final=True)
                if block is None:
                    return
            if block is None:
                await wake.wait()
                continue
            if block.data:
                await write(block.data)
            offset = block.end


async def converse(
    stream: Stream, terms: Terms, source: Source, run: Run, offset: int | None
) -> Left:
    """`offset` None: no output is wanted, and the end of `run` is the end."""
    process = Input(terms, run)
    output = asyncio.create_task(
        _output(stream, process, source, run, offset) if offset is not None else _over(run)
    )
    typing = asyncio.create_task(_typing(stream, process, terms))
    gone = asyncio.create_task(stream.gone.wait())
    waiting: set[asyncio.Task[object]] = {output, typing, gone}
    try:
        while True:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if output in done:
                try:
                    output.result()
                except ConnectionError:
                    return Left.GONE
                return Left.ENDED
            if typing in done and (left := typing.result()) is not None:
                return left
            if gone in done:
                return Left.GONE
    finally:
        for task in (output, typing, gone):
            task.cancel()
        await asyncio.gather(output, typing, gone, return_exceptions=True)
        process.close()


async def _output(stream: Stream, process: Input, source: Source, run: Run, offset: int) -> None:
    async def write(data: bytes) -> None:
        await stream.write(data)
        process.written(len(data))

    await follow(source, run, offset, write)


async def _over(run: Run) -> None:
    await run.over.wait()


async def _typing(stream: Stream, process: Input, terms: Terms) -> Left | None:
    """None: the client has said all it will say, and goes on listening."""
    escape = Escape(terms.keys) if terms.tty and terms.stdin else None
    while data := await stream.read():
        if not terms.stdin:
            continue
        passed, detached = escape.feed(data) if escape else (data, False)
        if passed:
            await process.write(passed)
        if detached:
            return Left.DETACHED
    if not terms.stdin:
        return None
    if terms.tty or not terms.once:
        return Left.CLOSED
    await process.end()
    return None


class Input:
    """stdin of a process that runs or will; what is written before its start waits for it."""

    def __init__(self, terms: Terms, run: Run) -> None:
        self._terms = terms
        self._run = run
        self._attach: Attach | None = None
        self._holding: asyncio.Task[None] | None = None
        self._ahead = 0
        self._moved = asyncio.Event()
        self._moved_at = 0.0

    async def write(self, data: bytes) -> None:
        """Waits while the program does not read; lost when it has ended."""
        try:
            if (attach := await self._opened()) is not None:
                await attach.write(data)
        except WrongState:
            pass  # it has ended or closed its input: nothing takes this any more

    async def end(self) -> None:
        """The end of its input."""
        try:
            if (attach := await self._opened()) is not None:
                attach.end_input()
        except WrongState:
            pass  # it has ended already

    async def _opened(self) -> Attach | None:
        await self._run.started.wait()
        if self._attach is None and not self._run.dying.is_set():
            self._attach = await Attach.open(self._terms.bundle)
            self._moved_at = asyncio.get_running_loop().time()
            self._holding = asyncio.create_task(self._hold(self._attach))
        return self._attach

    async def _hold(self, attach: Attach) -> None:
        with self._run.waking(self._moved):
            while data := await attach.read():
                self._ahead += len(data)
                if self._terms.tty:
                    await self._brake()

    async def _brake(self) -> None:
        while self._ahead > BRAKE_BYTES and not self._run.dying.is_set():
            self._moved.clear()
            try:
                async with asyncio.timeout_at(self._moved_at + BRAKE_SECONDS):
                    await self._moved.wait()
            except TimeoutError:
                return  # it does not read at all: nobody waits for it

    def written(self, size: int) -> None:
        """The client has taken `size` bytes of output."""
        self._ahead = max(0, self._ahead - size)
        self._moved_at = asyncio.get_running_loop().time()
        self._moved.set()

    def close(self) -> None:
        """With StdinOnce conmon now closes the process's input, as Docker does."""
        if self._holding is not None:
            self._holding.cancel()
        if self._attach is not None:
            self._attach.close()
