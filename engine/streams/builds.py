"""A build's log to one reader: `builds/ID/log.jsonl`, raw by offset, until its last line is sent.

    open    {from}
    hello   {v, from, state}, then frames [u64 offset][bytes]; in: ack {offset}
    end     {reason: done | failed | cancelled}

The lines are engine.build's (one JSON object each); a line `again` means the build began anew.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from engine.config import EngineConfig
from engine.containers.watch import FolderWatcher, waking
from engine.errors import InvalidInput, NotFound
from engine.models import Build
from engine.services.orm import orm
from engine.streams import follow
from engine.streams.follow import GATHER_SECONDS, End, whole_number
from engine.streams.framing import FrameStream, with_offset
from engine.streams.window import Window

CHUNK = 64 * 1024
# How a build ended is known from its last line at once; the row is asked besides, for a build
# whose worker was lost for good and wrote none.
ROW_SECONDS = 2.0


async def stream(
    config: EngineConfig,
    watcher: FolderWatcher,
    frames: FrameStream,
    id: str,
    request: dict[str, Any],
) -> End:
    """Raises NotFound, InvalidInput."""
    state = await orm(_state, id)
    folder = config.builds_dir / id
    start = max(0, whole_number(request, "from", 0))
    follower = _Follower(frames, id, folder / "log.jsonl", start)
    await frames.send({"t": "hello", "v": 1, "from": start, "state": state})
    async with waking(watcher, folder, follower.wake):
        return await follow.run(frames, follower.pump(), follower.heard)


class _Follower:
    def __init__(self, frames: FrameStream, id: str, path: Path, start: int) -> None:
        self._frames = frames
        self._id = id
        self._path = path
        self._window = Window(start)
        self._tail = b""
        self.wake = asyncio.Event()

    async def heard(self, message: dict[str, Any]) -> None:
        if message["t"] != "ack":
            raise InvalidInput(f"no such message here: {message['t']}")
        self._window.ack(whole_number(message, "offset", 0))

    async def pump(self) -> End:
        descriptor = await self._opened()
        if descriptor is None:
            return {"reason": await orm(_state, self._id)}
        try:
            while True:
                await self._window.wait()
                self.wake.clear()
                data = os.pread(descriptor, CHUNK, self._window.sent)
                if data:
                    await self._frames.send_bytes(with_offset(self._window.sent, data))
                    self._window.move(self._window.sent + len(data))
                    self._tail = _last_line(self._tail + data)
                    await asyncio.sleep(0 if len(data) == CHUNK else GATHER_SECONDS)
                elif (end := self._ended()) or (
                    await self._paused()
                    and (end := await self._closed())
                    and not os.pread(descriptor, 1, self._window.sent)
                ):
                    return {"reason": end}
        finally:
            os.close(descriptor)

    async def _opened(self) -> int | None:
        """The file, as soon as there is one; None when the build ended without one."""
        while True:
            self.wake.clear()
            try:
                return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if await self._closed():
                    return None
            await self._paused()

    def _ended(self) -> str:
        """What the last whole line says of the build's end; empty when it says nothing."""
        line, _, rest = self._tail.rpartition(b"\n")
        if rest or not line:
            return ""
        try:
            event = json.loads(line)
        except ValueError:
            return ""
        kind = event.get("t") if isinstance(event, dict) else ""
        return kind if kind in ("done", "failed", "cancelled") else ""

    async def _closed(self) -> str:
        """The row's state, once it is a final one."""
        state = await orm(_state, self._id)
        return "" if state in (Build.State.QUEUED, Build.State.RUNNING) else state

    async def _paused(self) -> bool:
        """Wait for the log to change; True when it did not for ROW_SECONDS."""
        try:
            async with asyncio.timeout(ROW_SECONDS):
                await self.wake.wait()
        except TimeoutError:
            return True
        return False


def _last_line(data: bytes) -> bytes:
    """From the beginning of the last line that is begun or whole; bounded."""
    begin = data.rfind(b"\n", 0, -1) + 1
    return data[begin:][-CHUNK:]


def _state(id: str) -> str:
    """Raises NotFound."""
    state = Build.objects.filter(pk=int(id)).values_list("state", flat=True).first()
    if state is None:
        raise NotFound(f"no such build: {id}", kind="build", name=id)
    return state
