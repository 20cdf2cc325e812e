"""A container's log for all who read along: read, converted and watched once for everybody.

A thousand followers of one container cost one look at its log and one conversion a block; each has
an offset of its own, so whoever is slow falls behind alone and holds up nobody. Nothing polls.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from engine.api.frames import Format, convert
from engine.config import EngineConfig
from engine.containers.attempts import Attempt, Exit
from engine.containers.ends import End, until_end
from engine.containers.layout import ContainerDir
from engine.containers.loglines import MAX_LINE
from engine.containers.logs import LogReader
from engine.containers.watch import FolderWatcher, waking

# At the log's end, on the loop; further back, in a thread.
_LIVE, _BULK = 64 * 1024, 256 * 1024
_BLOCKS = 6
# With many readers what comes in a stroke of time is one block for all.
_GATHER_A_READER, _MOST_GATHER = 1e-4, 0.1
# Starts that fail without a trace between two that run; each is another number.
_FAILED_STARTS = 8
# What another process has open may keep conmon from its end.
_LAST_SECONDS = 1.0


async def stored(folder: Path, form: Format, start: int, end: int) -> AsyncIterator[bytes]:
    """What lies between two offsets, converted; the next block is read while this one is sent."""
    with LogReader(folder) as reader:
        coming = asyncio.create_task(asyncio.to_thread(_stored, reader, form, start, end))
        try:
            while (block := await coming) is not None:
                coming = asyncio.create_task(
                    asyncio.to_thread(_stored, reader, form, block.end, end)
                )
                if block.data:
                    yield block.data
        finally:
            # Its thread has the reader until then, whoever hung up.
            await asyncio.wait({coming})


def _stored(reader: LogReader, form: Format, offset: int, end: int) -> Block | None:
    if offset >= end:
        return None
    chunk = reader.read(offset, _BULK)
    data = chunk.data[: max(0, end - chunk.offset)]
    if not data:
        return None
    last = chunk.offset + len(data) == end
    text, consumed = convert(form, data, final=last)
    if not consumed:
        # A line that a full disk cut, or one longer than Docker's own are.
        text = convert(form, data if data.endswith(b"\n") else data + b"\n", final=True)[0]
        consumed = len(data)
    return Block(text, chunk.offset + consumed)


async def written_down(attempt: Attempt) -> None:
    """Where the process has ended and conmon has still to write the last it said: until it has."""
    init = (await asyncio.to_thread(attempt.processes))[1]
    if init is None or init.alive() or attempt.exit() is not None:
        return
    with suppress(TimeoutError):
        async with sources().run(attempt) as run, asyncio.timeout(_LAST_SECONDS):
            await run.over.wait()


@dataclass(frozen=True, slots=True)
class Block:
    """`data` is converted; the next block begins at `end`."""

    data: bytes
    end: int


class Source:
    """One log in one format, while somebody reads it (`Sources.reading`)."""

    def __init__(self, folder: Path, form: Format) -> None:
        self._form = form
        self._reader = LogReader(folder)
        self._lock = asyncio.Lock()
        self._reading = threading.Lock()
        self._closed = False
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._wakes: set[asyncio.Event] = set()
        self._changes = 0
        self._empty: tuple[int, int] = (-1, -1)
        self._tail = -1

    @property
    def end(self) -> int:
        """Of the log, for now."""
        return self._reader.bounds()[1]

    async def block(self, offset: int, *, final: bool = False) -> Block | None:
        """The next piece from `offset` on; None when there is none (yet). `final`: nothing comes
        any more, so what is unfinished goes out too."""
        found = self._known(offset, final)
        if found is not None or (not final and self._empty == (offset, self._changes)):
            return found
        async with self._lock:
            found = self._known(offset, final)
            if found is not None:
                return found
            changes = self._changes
            if offset == self._tail:
                made = self._read(offset, _LIVE, final)
            else:
                made = await asyncio.to_thread(self._read, offset, _BULK, final)
            if made is None:
                self._empty, self._tail = (offset, changes), offset
            elif not final:
                self._blocks[offset] = made
                if len(self._blocks) > _BLOCKS:
                    self._blocks.popitem(last=False)
                if offset == self._tail:
                    self._tail = made.end
            return made

    def _known(self, offset: int, final: bool) -> Block | None:
        return None if final else self._blocks.get(offset)

    def _read(self, offset: int, limit: int, final: bool) -> Block | None:
        with self._reading:
            if self._closed:
                return None
            chunk = self._reader.read(offset, limit)
        if not chunk.data:
            return Block(b"", chunk.offset) if chunk.gap is not None else None
        data, consumed = convert(self._form, chunk.data, final=final)
        if not consumed and b"\n" not in chunk.data and (final or len(chunk.data) > MAX_LINE):
            # Cut by a full disk: nothing will end this line.
            data = convert(self._form, chunk.data + b"\n", final=True)[0]
            consumed = len(chunk.data)
        return Block(data, chunk.offset + consumed) if consumed else None

    @contextmanager
    def waking(self, wake: asyncio.Event) -> Iterator[None]:
        """`wake` is set whenever there may be more."""
        self._wakes.add(wake)
        try:
            yield
        finally:
            self._wakes.discard(wake)

    async def watch(self, watcher: FolderWatcher, folder: Path) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        last = 0.0
        async with waking(watcher, folder, changed):
            while True:
                await changed.wait()
                pause = last + min(_MOST_GATHER, len(self._wakes) * _GATHER_A_READER) - loop.time()
                if pause > 0:
                    await asyncio.sleep(pause)
                changed.clear()
                last = loop.time()
                self._changes += 1
                for wake in self._wakes:
                    wake.set()

    def close(self) -> None:
        # A reader that hung up may have left a read behind in its thread.
        with self._reading:
            self._closed = True
            self._reader.close()


class Run:
    """One start of a container, or one exec, until it is over; shared by all who wait for that.

    `started` is set once conmon can be attached to, `over` once it has ended or is known never to
    come; `exit` is None where nobody saw the code."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.started = asyncio.Event()
        self.over = asyncio.Event()
        self.dying = asyncio.Event()
        self.exit: Exit | None = None
        self._wakes: set[asyncio.Event] = set()

    async def watch(self, watcher: FolderWatcher) -> None:
        end = await until_end(watcher, self.attempt, started=self._started, dying=self._dying)
        self._ended(end)

    def _ended(self, end: End) -> None:
        self.exit = end.exit
        if end.started:
            self.started.set()
        self.dying.set()
        self.over.set()
        self._wake()

    def _started(self) -> None:
        self.started.set()
        self._wake()

    def _dying(self) -> None:
        self.dying.set()
        self._wake()

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()

    @contextmanager
    def waking(self, wake: asyncio.Event) -> Iterator[None]:
        """`wake` is set at its start, when its first process has ended, and when it is over."""
        self._wakes.add(wake)
        try:
            yield
        finally:
            self._wakes.discard(wake)


class NextRun(Run):
    """The start that comes next, from `generation` on: numbers of starts that failed are skipped.
    Whoever knows that it will not come says so (`give_up`)."""

    def __init__(self, config: EngineConfig, uid: str, generation: int) -> None:
        self._directory = ContainerDir(config, uid)
        self._generation = generation
        super().__init__(self._attempt(generation))

    async def watch(self, watcher: FolderWatcher) -> None:
        wake = asyncio.Event()
        async with waking(watcher, self.attempt.folder.parent, wake):
            while not self.over.is_set():
                wake.clear()
                begun = self._begun()
                if begun is None:
                    await wake.wait()
                    continue
                self.attempt = begun
                end = await until_end(watcher, begun, started=self._started, dying=self._dying)
                if end.started:
                    self._ended(end)

    def give_up(self) -> None:
        """It will never come."""
        self._ended(End(None, started=False))

    def _begun(self) -> Attempt | None:
        for generation in range(self._generation, self._generation + _FAILED_STARTS):
            attempt = self._attempt(generation)
            if attempt.begun:
                self._generation = generation + 1
                return attempt
        return None

    def _attempt(self, generation: int) -> Attempt:
        return Attempt(self._directory.exits(generation), self._directory.id)


class Sources:
    """All sources and runs of this process. Make it inside its running loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._watcher = FolderWatcher()
        self._sources: dict[tuple[Path, Format], tuple[Source, asyncio.Task[None], list[int]]] = {}
        self._runs: dict[Path, tuple[Run, asyncio.Task[None], list[int]]] = {}

    @asynccontextmanager
    async def reading(self, folder: Path, form: Format) -> AsyncIterator[Source]:
        key = (folder, form)
        if key not in self._sources:
            made = Source(folder, form)
            task = asyncio.create_task(made.watch(self._watcher, folder))
            self._sources[key] = (made, task, [0])
        source, watching, count = self._sources[key]
        count[0] += 1
        try:
            yield source
        finally:
            count[0] -= 1
            if not count[0]:
                del self._sources[key]
                await _ended(watching)
                source.close()

    @asynccontextmanager
    async def next_run(
        self, config: EngineConfig, uid: str, generation: int
    ) -> AsyncIterator[NextRun]:
        made = NextRun(config, uid, generation)
        task = asyncio.create_task(made.watch(self._watcher))
        try:
            yield made
        finally:
            await _ended(task)

    @asynccontextmanager
    async def run(self, attempt: Attempt) -> AsyncIterator[Run]:
        key = attempt.folder
        if key not in self._runs:
            made = Run(attempt)
            task = asyncio.create_task(made.watch(self._watcher))
            self._runs[key] = (made, task, [0])
        run, watching, count = self._runs[key]
        count[0] += 1
        try:
            yield run
        finally:
            count[0] -= 1
            if not count[0]:
                del self._runs[key]
                await _ended(watching)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


_kept: Sources | None = None


def sources() -> Sources:
    """This loop's."""
    global _kept
    if _kept is None or _kept.loop is not asyncio.get_running_loop():
        _kept = Sources()
    return _kept
