"""One page's view of a terminal: its screen brought up to now, then every byte in order.

Nothing is sent before the page's first `resize`: the program's size, and the width the replayed
bytes were meant for, must be the page's own from the beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from engine.containers.loglines import decode_tty
from engine.containers.logs import LogReader
from engine.containers.watch import waking
from engine.errors import InvalidInput, QuaysideError
from engine.models import TerminalSession
from engine.services.orm import orm
from engine.streams import follow, screen, sessions
from engine.streams.follow import End, whole_number
from engine.streams.framing import FrameStream, with_offset
from engine.streams.hub import Watch, hub
from engine.streams.screen import FAR_BYTES, Screen
from engine.streams.sessions import Session
from engine.streams.terminal import Terminal, Viewer
from engine.streams.terminals import Terminals
from engine.streams.window import Window

CHUNK = 64 * 1024
# A page sends its size as soon as it has drawn; without one it is no page of ours.
RESIZE_SECONDS = 30.0
# A start waits behind others in its queue, but not for ever.
START_SECONDS = 120.0
# Pieces of one redraw that come within this are one frame; a key's echo comes alone, at once.
GATHER_SECONDS = 0.004
MOST_CELLS = 1000
MOST_VIEWERS = 8
# Of at most 64 KiB each: what one page has typed or pasted and the program has not read.
STDIN_FRAMES = 16


async def stream(
    terminals: Terminals, frames: FrameStream, id: str, request: dict[str, Any]
) -> End:
    """One viewer, until it hangs up or the terminal ends. Raises NotFound, InvalidInput."""
    session = await orm(sessions.load, id)
    if request.get("finish") is True:
        return await terminals.finish(session)
    view = View(terminals, frames, session, whole_number(request, "seen", -1))
    return await follow.run(frames, view.pump(), view.heard, view.heard_bytes)


class View:
    """`pump` gives the stream's `end`; `heard` and `heard_bytes` take what the page sends."""

    def __init__(
        self, terminals: Terminals, frames: FrameStream, session: Session, seen: int
    ) -> None:
        self._terminals = terminals
        self._frames = frames
        self._session = session
        self._seen = seen
        self._viewer = Viewer(Window(0))
        self._sized = asyncio.Event()
        self._stdin: asyncio.Queue[bytes] = asyncio.Queue(STDIN_FRAMES)
        self._terminal: Terminal | None = None
        self._told: tuple[tuple[int, int] | None, int] = (None, 1)

    # ---- in

    async def heard(self, message: dict[str, Any]) -> None:
        match message["t"]:
            case "resize":
                cols, rows = (whole_number(message, name, 0) for name in ("cols", "rows"))
                if not (0 < cols <= MOST_CELLS and 0 < rows <= MOST_CELLS):
                    raise InvalidInput(f"not a terminal's size: {cols} by {rows}")
                self._viewer.size = (cols, rows)
                self._sized.set()
                if self._terminal is not None:
                    self._terminal.resize()
            case "ack":
                offset = whole_number(message, "offset", 0)
                if self._terminal is not None:
                    self._terminal.acked(self._viewer, offset)
            case "eof":
                if self._terminal is not None:
                    await self._terminal.end_input()
            case kind:
                raise InvalidInput(f"no such message here: {kind}")

    async def heard_bytes(self, data: bytes) -> None:
        # By a queue: acknowledgements must not wait behind what a program does not read yet.
        await self._stdin.put(data)

    async def _type(self, terminal: Terminal) -> None:
        while True:
            await terminal.write(await self._stdin.get())

    # ---- out

    async def pump(self) -> End:
        session, wake = self._session, self._viewer.wake
        with hub.watch(session.container, wake) as watch:
            if session.attach:
                generation = await orm(sessions.attach_generation, self._terminals.config, session)
                refusal = await self._started(watch, generation)
                if refusal is not None:
                    return refusal
                terminal = self._terminals.of_main(session, generation)
            else:
                terminal = self._terminals.of_exec(session)
            with LogReader(terminal.place.log) as reader:
                return await self._run(terminal, reader, watch)

    async def _started(self, watch: Watch, generation: int) -> End | None:
        """Wait until that start has come; an `end` when it does not."""
        wake, told = self._viewer.wake, False
        try:
            async with asyncio.timeout(START_SECONDS):
                while True:
                    wake.clear()
                    state = watch.state
                    if state is None:
                        return {"reason": "container-removed"}
                    begun = state.generation > generation or (
                        state.generation == generation
                        and (state.running or state.exit_code is not None)
                    )
                    if begun:
                        return None
                    refusal = await orm(sessions.start_refusal, self._session.uid, generation)
                    if refusal is not None and watch.state == state:
                        await orm(sessions.end, self._session.id, None, "start-failed")
                        return {"reason": "start-failed", "detail": refusal}
                    if not told:
                        told = True
                        await self._frames.send({"t": "waiting"})
                    await _within(1.0, wake.wait())
        except TimeoutError:
            return {"reason": "start-failed", "detail": "it waited too long", "again": True}

    async def _run(self, terminal: Terminal, reader: LogReader, watch: Watch) -> End:
        session, viewer = self._session, self._viewer
        await terminal.settled()
        begin = await asyncio.to_thread(screen.begin, reader, terminal, self._seen)
        viewer.window.restart(begin.start)
        over = self._over()
        hands = terminal.stdin and over is None and terminal.ended is None
        await self._frames.send(
            {
                "t": "hello",
                "v": 1,
                "from": begin.start,
                "fresh": begin.fresh,
                "skipped": begin.skipped,
                "mode": "hands" if hands else "read",
                "tty": terminal.tty,
            }
        )
        if not await _within(RESIZE_SECONDS, self._sized.wait()):
            return {"code": 4408, "reason": "idle"}
        if over is not None:
            await self._send_screen(begin)
            return over
        if terminal.viewers >= MOST_VIEWERS:
            return {"code": 4429, "reason": "too-many"}
        if not session.attach:
            assert viewer.size is not None
            try:
                await self._terminals.start_exec(session, viewer.size)
            except QuaysideError as error:
                told = {"detail": error.message, "error": error.as_dict()}
                return {"reason": "start-failed", **told}
        await orm(sessions.mark_open, session.id)
        with terminal.looking(viewer):
            if hands:
                await terminal.hold()
            self._terminal = terminal
            typing = asyncio.create_task(self._type(terminal))
            terminal.resize()
            try:
                async with waking(self._terminals.watcher, terminal.place.log, viewer.wake):
                    await self._send_screen(begin)
                    if begin.pieces or self._seen >= 0:
                        await terminal.nudge()
                    return await self._follow(terminal, reader, watch)
            finally:
                self._terminal = None
                typing.cancel()
                await asyncio.gather(typing, return_exceptions=True)

    def _over(self) -> End | None:
        """The `end` of a session that ended before this page came."""
        session = self._session
        if session.state == TerminalSession.State.ENDED:
            return {"reason": session.reason or "exited", "exit_code": session.exit_code}
        return None

    async def _send_screen(self, begin: Screen) -> None:
        for piece in begin.pieces:
            await self._viewer.window.wait()
            await self._frames.send_bytes(with_offset(piece.end, piece.text))
            self._viewer.window.move(piece.end)
        self._viewer.window.move(begin.then)

    async def _follow(self, terminal: Terminal, reader: LogReader, watch: Watch) -> End:
        viewer = self._viewer
        window = viewer.window
        while True:
            viewer.wake.clear()
            ended, removed = terminal.ended, watch.state is None
            await self._tell(terminal)
            await window.wait()
            if terminal.tty and reader.bounds()[1] - window.sent > FAR_BYTES:
                await self._skip(terminal, reader)
            chunk = reader.read(window.sent, CHUNK)
            if chunk.gap is not None:
                gap = {"t": "gap", "from": chunk.gap.start, "to": chunk.gap.end}
                await self._frames.send(gap)
                window.restart(chunk.offset)
            raw = chunk.data
            if ended is not None:
                raw = raw[: max(0, ended.offset - chunk.offset)]
            data, consumed = decode_tty(raw)
            if consumed:
                offset = chunk.offset + consumed
                await self._frames.send_bytes(with_offset(offset, data))
                window.move(offset)
                await asyncio.sleep(0 if len(raw) == CHUNK else GATHER_SECONDS)
            elif ended is not None:
                return await self._end(terminal)
            elif removed:
                return {"reason": "container-removed"}
            else:
                await viewer.wake.wait()

    async def _skip(self, terminal: Terminal, reader: LogReader) -> None:
        """Too far behind: the screen as it is now, and how much was left out."""
        before = self._viewer.window.sent
        begin = await asyncio.to_thread(screen.begin, reader, terminal, -1)
        await self._frames.send({"t": "gap", "from": before, "to": begin.start})
        self._viewer.window.restart(begin.start)
        await self._send_screen(begin)

    async def _tell(self, terminal: Terminal) -> None:
        now = (terminal.size, terminal.viewers)
        if now[0] is not None and now[0] != self._told[0]:
            await self._frames.send({"t": "size", "cols": now[0][0], "rows": now[0][1]})
        if now[1] != self._told[1]:
            await self._frames.send({"t": "who", "viewers": now[1]})
        self._told = now

    async def _end(self, terminal: Terminal) -> End:
        assert terminal.ended is not None
        code = terminal.ended.code
        reason = await self._terminals.reason_of(self._session, terminal)
        await orm(sessions.end, self._session.id, code, reason)
        return {"reason": reason, "exit_code": code}


async def _within(seconds: float, waiting: Awaitable[object]) -> bool:
    """Whether it came within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        return False
    return True
