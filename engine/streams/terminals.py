"""Terminals by session: who gets which, when an exec starts, and when nobody comes back. What
their viewers are sent and send (`engine.streams.viewer`):

    open    {seen}      the offset a page has already; negative: none, so the screen is replayed
    hello   {v, from, mode, tty, skipped}, then nothing before the first `resize`
    frames  [u64 offset in the log AFTER these bytes][bytes]
    out     waiting · size {cols, rows} · who {viewers} · gap {from, to}
    in      resize {cols, rows} first of all · ack {offset} · eof · binary: stdin
    end     reason: exited · container-stopped · container-removed · start-failed · lost · left ·
            never-opened; with exit_code and detail where there is one

With `finish` in the first frame nothing is shown: an exec is hung up, killed if that is not
enough, and the `end` comes when it has ended.

An exec starts with its first `resize`, so that its size is right from the first byte. It is
engined's and conmon's, not the browser's: it outlives sockets, and engined itself.
"""

from __future__ import annotations

import asyncio
import logging
import signal

from engine.config import EngineConfig
from engine.containers.attempts import Attempt
from engine.containers.exec import ExecRequest, Execs
from engine.containers.layout import ContainerDir
from engine.containers.watch import FolderWatcher
from engine.errors import EngineError, InvalidInput, QuaysideError, WrongState
from engine.models import TerminalSession
from engine.services.orm import orm
from engine.services.work.host import host
from engine.streams import sessions
from engine.streams.follow import End
from engine.streams.sessions import Session
from engine.streams.terminal import Place, Terminal

logger = logging.getLogger(__name__)

# A shell nobody looks at is forgotten more often than left on purpose; ten minutes are enough
# for a reload, a lost network or a walk to another desk.
LEFT_SECONDS = 600.0
# For a program that takes SIGHUP for something else.
HUNG_UP_SECONDS = 10.0
# Somebody waits for it to end: a program that saves its work when hung up is done by then.
FINISH_SECONDS = 3.0
SWEEP_SECONDS = 5.0
OVERDUE_SECONDS = 60.0
# The best shell there is, found inside: an image may have only one of them.
SHELL = ("/bin/sh", "-c", "if [ -x /bin/bash ]; then exec /bin/bash; else exec /bin/sh; fi")


class Terminals:
    """All terminals of this engined: execs by session, main processes by container and start."""

    def __init__(self, config: EngineConfig, watcher: FolderWatcher) -> None:
        self.config = config
        self.watcher = watcher
        self._execs = Execs(config, host().runtime)
        self._terminals: dict[str, Terminal] = {}
        self._starting: dict[str, asyncio.Lock] = {}
        self._left: dict[str, float] = {}
        self._concluding: set[asyncio.Task[None]] = set()

    async def finish(self, session: Session) -> End:
        """End an exec, and wait for that. Raises InvalidInput for a main process, EngineError for
        one that cannot be killed."""
        if session.attach:
            raise InvalidInput("a main process ends with its container", hint="stop the container")
        if session.state == TerminalSession.State.ENDED:
            return {"reason": session.reason}
        async with self._starting.setdefault(session.id, asyncio.Lock()):
            terminal = self.of_exec(session)
            if not terminal.watching:
                self._starting.pop(session.id, None)
                await orm(sessions.end, session.id, None, "never-opened")
                return {"reason": "never-opened"}
        for number in (signal.SIGHUP, signal.SIGKILL):
            terminal.signal(number)
            try:
                async with asyncio.timeout(FINISH_SECONDS):
                    await terminal.end_seen.wait()
            except TimeoutError:
                continue
            assert terminal.ended is not None
            await orm(sessions.end, session.id, terminal.ended.code, "exited")
            return {"reason": "exited", "exit_code": terminal.ended.code}
        raise EngineError(f"terminal {session.id} does not end", hint="stop the container")

    # ---- what views ask for

    def of_main(self, session: Session, generation: int) -> Terminal:
        """The terminal on a container's main process: one for all sessions on one start."""
        key = f"{session.uid}.{generation}"
        terminal = self._terminals.get(key)
        if terminal is None:
            directory = ContainerDir(self.config, session.uid)
            terminal = self._terminals[key] = Terminal(
                Place(
                    directory.bundle,
                    directory.log,
                    Attempt(directory.exits(generation), session.uid),
                    Attempt(directory.exits(generation + 1), session.uid),
                ),
                tty=session.container.tty,
                stdin=session.container.open_stdin,
                watcher=self.watcher,
            )
            terminal.start_watching()
        return terminal

    def of_exec(self, session: Session) -> Terminal:
        """The terminal of an exec, whether it has started yet or not."""
        terminal = self._terminals.get(session.id)
        if terminal is None:
            found = self._execs.find(session.uid, _exec_id(session))
            terminal = self._terminals[session.id] = Terminal(
                Place(found.folder, found.log, found.attempt),
                tty=session.tty,
                stdin=True,
                watcher=self.watcher,
            )
        return terminal

    async def start_exec(self, session: Session, size: tuple[int, int]) -> None:
        """Once, whoever comes first. Raises QuaysideError when it cannot start."""
        lock = self._starting.setdefault(session.id, asyncio.Lock())
        async with lock:
            terminal = self.of_exec(session)
            if terminal.watching:
                return
            request = ExecRequest(
                args=session.argv or SHELL,
                user=session.user,
                tty=session.tty,
                stdin=True,
                stdin_once=not session.tty,
                size=size if session.tty else None,
            )
            try:
                await asyncio.to_thread(self._execs.start, session.uid, request, _exec_id(session))
            except QuaysideError as error:
                reason = "container-stopped" if isinstance(error, WrongState) else "start-failed"
                await orm(sessions.end, session.id, None, reason)
                self._terminals.pop(session.id, None)
                raise
            self._watch_exec(session, terminal)
        self._starting.pop(session.id, None)

    async def reason_of(self, session: Session, terminal: Terminal) -> str:
        """Why a terminal that has ended did."""
        ended = terminal.ended
        assert ended is not None
        if session.id in self._left:
            return "left"
        if session.attach:
            return "lost" if ended.lost else "exited"
        # An exec killed with its container is told from one that was killed alone by the
        # container's own first process, which is gone then or about to be.
        if ended.code in (None, 137) and await asyncio.to_thread(self._main_ended, session):
            return "container-stopped"
        return "lost" if ended.lost else "exited"

    def _main_ended(self, session: Session) -> bool:
        folder = ContainerDir(self.config, session.uid).exits(session.generation)
        _, init = Attempt(folder, session.uid).processes()
        return init is None or init.wait(0.3)

    # ---- what goes on without views

    def _watch_exec(self, session: Session, terminal: Terminal) -> None:
        terminal.start_watching()
        task = asyncio.create_task(self._conclude(session, terminal))
        self._concluding.add(task)
        task.add_done_callback(self._concluding.discard)

    async def _conclude(self, session: Session, terminal: Terminal) -> None:
        await terminal.end_seen.wait()
        assert terminal.ended is not None
        reason = await self.reason_of(session, terminal)
        await orm(sessions.end, session.id, terminal.ended.code, reason)

    async def adopt(self) -> None:
        """Find the execs again that conmon held while engined was away."""
        for session in await orm(sessions.open_execs):
            found = self._execs.find(session.uid, _exec_id(session))
            if found.attempt.begun:
                self._watch_exec(session, self.of_exec(session))
            else:
                await orm(sessions.end, session.id, None, "container-stopped")

    async def run(self) -> None:
        """Until cancelled: hang up what nobody looks at, forget what is over."""
        loop = asyncio.get_running_loop()
        overdue = loop.time()
        while True:
            for key, terminal in list(self._terminals.items()):
                self._sweep(key, terminal, loop.time())
            if loop.time() - overdue > OVERDUE_SECONDS:
                overdue = loop.time()
                await orm(sessions.overdue)
            await asyncio.sleep(SWEEP_SECONDS)

    def _sweep(self, key: str, terminal: Terminal, now: float) -> None:
        if terminal.viewers or now - terminal.left_at < LEFT_SECONDS:
            return
        if terminal.ended or not terminal.watching or "." in key:
            # Over, never started, or a main process, which needs nobody here to run on.
            del self._terminals[key]
            self._left.pop(key, None)
            terminal.stop_watching()
        elif key not in self._left:
            self._left[key] = now
            terminal.signal(signal.SIGHUP)
        elif now - self._left[key] > HUNG_UP_SECONDS:
            terminal.signal(signal.SIGKILL)

    async def close(self) -> None:
        """engined ends; the processes go on."""
        for task in self._concluding:
            task.cancel()
        await asyncio.gather(*self._concluding, return_exceptions=True)
        for terminal in self._terminals.values():
            terminal.stop_watching()


def _exec_id(session: Session) -> str:
    return session.id.replace("-", "")
