"""What a container uses, to whoever looks: one reader for all of them, none while nobody looks.

    open       {}
    out        hello {v, seconds, keeps, …state} · state {running, state, exit_code, by_hand}
               usage {samples: [engine.containers.usage.Usage]}   those kept first, then each second
               processes {titles, rows, more}                     as `docker top` has them
    in         look {on}   a page that is hidden does not count as a looker

The reader keeps the last minutes, and keeps them for a while when the last looker goes, so that a
reload shows what was there. A stopped container's stream stays open: it may be started again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from engine.containers.stats import Sample
from engine.containers.top import Top
from engine.containers.usage import usage
from engine.errors import InvalidInput, QuaysideError, WrongState
from engine.services.work.host import host
from engine.streams import follow
from engine.streams.follow import End
from engine.streams.framing import FrameStream
from engine.streams.hub import ContainerState, hub, load_state

logger = logging.getLogger(__name__)

SECONDS = 1.0
KEPT = 300
# ps costs more than all of a reading: the table follows at a person's pace.
PROCESSES_EVERY = 3
MOST_PROCESSES = 100
MOST_TEXT = 300
# Readings of a container nobody looks at any more.
_IDLE_READERS = 64
_GATHERED = 50
# A second look within this fraction of a second would divide by next to nothing.
_SOON = 0.5


class Reader:
    """One container's, while `lookers` has any. `samples` are (number, Usage as JSON)."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.lookers: set[asyncio.Event] = set()
        self.samples: deque[tuple[int, dict[str, Any]]] = deque(maxlen=KEPT)
        self.processes: dict[str, Any] | None = None
        self.readings = 0
        self._before: tuple[int, Sample] | None = None
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def looking(self, wake: asyncio.Event, state: ContainerState) -> Iterator[None]:
        """`wake` is set at each reading; the first looker starts them, the last one ends them."""
        self.lookers.add(wake)
        if self._task is None:
            self._task = asyncio.create_task(self._run(state))
        try:
            yield
        finally:
            self.lookers.discard(wake)
            if not self.lookers and self._task is not None:
                self._task.cancel()
                self._task = self._before = None

    async def _run(self, state: ContainerState) -> None:
        try:
            await self._read_on(state)
        except Exception:
            logger.exception("the readings of %s ended", self.uid[:12])

    async def _read_on(self, state: ContainerState) -> None:
        changed = asyncio.Event()
        clock = asyncio.get_running_loop().time
        with hub.watch(state, changed) as watch:
            while watch.state is not None:
                changed.clear()
                due: float | None = None
                if watch.state.running:
                    due = clock() + SECONDS
                    await self._read(watch.state.generation)
                elif self.processes is not None:
                    self.processes = None
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await changed.wait()
                if due is not None and due - clock() > _SOON:
                    await asyncio.sleep(_SOON)

    async def _read(self, generation: int) -> None:
        before = self._before[1] if self._before and self._before[0] == generation else None
        try:
            now = await asyncio.to_thread(host().running.sample, self.uid, generation)
            if self.readings % PROCESSES_EVERY == 0 or before is None:
                found = await asyncio.to_thread(host().running.top, self.uid, generation)
                self.processes = _processes(found)
        except WrongState:
            self._before = None  # it ended: the row says so in a moment
            return
        except QuaysideError:
            logger.exception("cannot read what %s uses", self.uid[:12])
            return
        self._before = (generation, now)
        self.readings += 1
        self.samples.append((self.readings, usage(now, before).to_json()))
        for wake in self.lookers:
            wake.set()


class Readers:
    """Those of this process, by container; of the idle ones the latest few."""

    def __init__(self) -> None:
        self._readers: dict[str, Reader] = {}

    def of(self, uid: str) -> Reader:
        reader = self._readers.pop(uid, None) or Reader(uid)
        self._readers[uid] = reader
        idle = [key for key, one in self._readers.items() if not one.lookers and key != uid]
        for key in idle[:-_IDLE_READERS]:
            del self._readers[key]
        return reader

    def forget(self, uid: str) -> None:
        """The container is gone."""
        self._readers.pop(uid, None)

    async def stream(self, frames: FrameStream, uid: str) -> End:
        """Until the reader hangs up or the container is removed. Raises NotFound."""
        state = await load_state(uid)
        looker = _Looker(frames, self.of(uid), state)
        hello = {"t": "hello", "v": 1, "seconds": SECONDS, "keeps": KEPT, **_told(state)}
        await frames.send(hello)
        end = await follow.run(frames, looker.pump(), looker.heard)
        if end.get("reason") == "gone":
            self.forget(uid)
        return end


class _Looker:
    def __init__(self, frames: FrameStream, reader: Reader, state: ContainerState) -> None:
        self._frames = frames
        self._reader = reader
        self._told = state
        self._seen = 0
        self._processes: dict[str, Any] | None = None
        self._on = asyncio.Event()
        self._on.set()
        self._wake = asyncio.Event()

    async def heard(self, message: dict[str, Any]) -> None:
        if message["t"] != "look":
            raise InvalidInput(f"no such message here: {message['t']}")
        if message.get("on"):
            self._on.set()
        else:
            self._on.clear()
            self._wake.set()

    async def pump(self) -> End:
        while True:
            await self._on.wait()
            state = await load_state(self._reader.uid)
            with (
                hub.watch(state, self._wake) as watch,
                self._reader.looking(self._wake, state),
            ):
                while self._on.is_set():
                    self._wake.clear()
                    if watch.state is None:
                        return {"code": 4404, "reason": "gone"}
                    await self._tell(watch.state)
                    await self._wake.wait()

    async def _tell(self, state: ContainerState) -> None:
        reader = self._reader
        if _told(state) != _told(self._told):
            await self._frames.send({"t": "state", **_told(state)})
            self._told = state
        new = [sample for number, sample in reader.samples if number > self._seen]
        self._seen = reader.samples[-1][0] if reader.samples else self._seen
        for at in range(0, len(new), _GATHERED):
            await self._frames.send({"t": "usage", "samples": new[at : at + _GATHERED]})
        if reader.processes is not self._processes and reader.processes is not None:
            await self._frames.send(reader.processes)
        self._processes = reader.processes


def _told(state: ContainerState) -> dict[str, Any]:
    return {
        "running": state.running,
        "state": state.state,
        "exit_code": state.exit_code,
        "by_hand": state.by_hand,
    }


def _processes(found: Top) -> dict[str, Any]:
    """As many rows as one frame has room for; `more` are the others."""
    rows: list[list[str]] = []
    room = 60_000
    for process in found.processes[:MOST_PROCESSES]:
        row = [text[:MOST_TEXT] for text in process]
        room -= len(json.dumps(row))
        if room < 0:
            break
        rows.append(row)
    more = len(found.processes) - len(rows)
    return {"t": "processes", "titles": list(found.titles), "rows": rows, "more": more}


readers = Readers()
