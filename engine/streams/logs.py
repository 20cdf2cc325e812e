"""A container's log to one reader: raw bytes by offset, followed, with the container's ends.

    open    {from, download?, times?}   negative from: the last N lines
    hello   {v, from, size, running, exit_code, by_hand, tty}, then frames [u64 offset][bytes]
    gap {from, to} · start {generation} · exit {code, by_hand}, each after the bytes before it
    in      ack {offset} · follow {on}

A stopped container's log stays open: it may be started again. A download is the decoded text up
to the end of now, without offsets and without acknowledgement, and then `end`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from engine.config import EngineConfig
from engine.containers.layout import ContainerDir
from engine.containers.loglines import decode_tty
from engine.containers.logs import Chunk, LogReader
from engine.containers.watch import FolderWatcher, waking
from engine.errors import InvalidInput
from engine.streams import follow
from engine.streams.follow import GATHER_SECONDS, End, whole_number
from engine.streams.framing import FrameStream, with_offset
from engine.streams.hub import ContainerState, hub, load_state
from engine.streams.window import Window

CHUNK = 64 * 1024
# More lines than a page asks for at once; beyond, it goes backwards by offset.
MOST_TAIL = 10_000


async def stream(
    config: EngineConfig,
    watcher: FolderWatcher,
    frames: FrameStream,
    uid: str,
    request: dict[str, Any],
) -> End:
    """Until the reader hangs up or the container is removed. Raises NotFound, InvalidInput."""
    state = await load_state(uid)
    folder = ContainerDir(config, uid).log
    with LogReader(folder) as reader:
        if request.get("download"):
            return await _download(frames, reader, times=bool(request.get("times")))
        first, size = reader.bounds()
        start = whole_number(request, "from", 0)
        if start < 0:
            # Up to a megabyte is parsed backwards: not on the loop that serves the others.
            start = await asyncio.to_thread(reader.tail, min(-start, MOST_TAIL))
        start = max(first, min(start, size))
        follower = _Follower(frames, reader, start, state)
        await frames.send(
            {
                "t": "hello",
                "v": 1,
                "from": start,
                "size": size,
                "running": state.running,
                "exit_code": state.exit_code,
                "by_hand": state.by_hand,
                "tty": state.tty,
            }
        )
        async with waking(watcher, folder, follower.wake):
            return await follow.run(frames, follower.pump(), follower.heard)


class _Follower:
    def __init__(
        self, frames: FrameStream, reader: LogReader, start: int, state: ContainerState
    ) -> None:
        self._frames = frames
        self._reader = reader
        self._window = Window(start)
        self._told = state
        self._exit_told = -1
        self._on = asyncio.Event()
        self._on.set()
        self.wake = asyncio.Event()

    async def heard(self, message: dict[str, Any]) -> None:
        match message["t"]:
            case "ack":
                self._window.ack(whole_number(message, "offset", 0))
            case "follow":
                if message.get("on"):
                    self._on.set()
                else:
                    self._on.clear()
            case kind:
                raise InvalidInput(f"no such message here: {kind}")

    async def pump(self) -> End:
        with hub.watch(self._told, self.wake) as watch:
            while True:
                await self._on.wait()
                await self._window.wait()
                # The state first: what it says happened after every byte that is read now.
                self.wake.clear()
                state = watch.state
                chunk = self._reader.read(self._window.sent, CHUNK)
                if chunk.data:
                    await self._send(chunk)
                    continue
                if state is None:
                    return {"code": 4404, "reason": "gone"}
                await self._tell(state)
                await self.wake.wait()

    async def _send(self, chunk: Chunk) -> None:
        if chunk.gap is not None:
            gap = {"t": "gap", "from": chunk.gap.start, "to": chunk.gap.end}
            await self._frames.send(gap)
            self._window.restart(chunk.offset)
        await self._frames.send_bytes(with_offset(chunk.offset, chunk.data))
        self._window.move(chunk.end)
        # A full chunk has more behind it; a small one may be joined by the next lines.
        await asyncio.sleep(0 if len(chunk.data) == CHUNK else GATHER_SECONDS)

    async def _tell(self, state: ContainerState) -> None:
        """A start and its end, once each, after the bytes before it."""
        if state.running:
            if self._told.generation != state.generation or not self._told.running:
                await self._frames.send({"t": "start", "generation": state.generation})
            self._told = state
        elif state.exit_code is not None and self._exit_told != state.generation:
            ended = {"code": state.exit_code, "by_hand": state.by_hand}
            await self._frames.send({"t": "exit", **ended})
            self._exit_told, self._told = state.generation, state


async def _download(frames: FrameStream, reader: LogReader, *, times: bool) -> End:
    """All that is kept, as the program wrote it; `times`: each line begins with its time."""
    offset, size = reader.bounds()
    begun: set[str] = set()
    while offset < size:
        if times:
            lines, after, _ = reader.read_lines(offset, CHUNK)
            pieces = []
            for line in lines:
                if line.stream not in begun:
                    pieces.append(f"{line.time} ".encode())
                pieces.append(line.text if line.partial else line.text + b"\n")
                (begun.add if line.partial else begun.discard)(line.stream)
            text = b"".join(pieces)
        else:
            chunk = reader.read(offset, CHUNK)
            text, consumed = decode_tty(chunk.data)
            after = chunk.offset + consumed
        if after <= offset:
            break
        offset = after
        for at in range(0, len(text), CHUNK):
            await frames.send_bytes(text[at : at + CHUNK])
        await asyncio.sleep(0)
    return {"reason": "done"}
