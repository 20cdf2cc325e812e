"""What engined serves, in processes of their own, forked from it: the streams, and the Docker API.

Two hundred logs keep one interpreter lock busy: an exit must not wait behind them for its turn.
So engined proper sees containers end and writes rows; its children only move bytes and answer.
None outlives the others: what ends first takes them along, and all are started anew.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from django.db import connections

from engine.config import EngineConfig
from engine.runtime.processes import wait

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_GO = b"go"
# It says good-bye to its clients, which takes a moment for hundreds.
_STOP_SECONDS = 5.0


Serve = Callable[[EngineConfig, asyncio.Event], Awaitable[None]]
Heard = Callable[[str], None]


class Child:
    """`begin` it before any thread is started; then `go`, `tell`, and `stop`."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self._pid = pid
        self._link = link
        self.pidfd = os.pidfd_open(pid)
        """Readable once it has ended."""

    @classmethod
    def begin(cls, config: EngineConfig, serve: Serve, heard: Heard | None = None) -> Child:
        """Fork; the child waits for `go` before it serves, and never returns from here.

        `serve(config, stop)` runs until `stop` is set; `heard(uid)` is what `tell` arrives at,
        where the child is to be told at all."""
        connections.close_all()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _child(config, serve, heard, theirs, parent)
        theirs.close()
        ours.setblocking(False)
        return cls(pid, ours)

    def go(self) -> None:
        """Rows are as the machine is: let pages in."""
        self._link.send(_GO)

    def tell(self, uid: str) -> None:
        """The row of container `uid` was written. From any thread; never waits."""
        # Full or gone: each watched row is looked at once a second anyway.
        with suppress(OSError):
            self._link.send(uid.encode())

    def stop(self) -> None:
        """Let it end its streams, then make it. Idempotent."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)
            if wait(self.pidfd, _STOP_SECONDS):
                break
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        self._link.close()


def _child(
    config: EngineConfig, serve: Serve, heard: Heard | None, link: socket.socket, parent: int
) -> None:
    """All of the child's life."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            link.setblocking(False)
            asyncio.run(_serve(config, serve, heard, link))
            code = 0
    except BaseException:
        logger.exception("%s ended", serve.__module__)
    finally:
        os._exit(code)


async def _serve(
    config: EngineConfig, serve: Serve, heard: Heard | None, link: socket.socket
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    waiting = asyncio.create_task(loop.sock_recv(link, 128))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        waiting.cancel()
        return
    if heard is not None:
        loop.add_reader(link, _hear, link, heard)
    await serve(config, stop)


def _hear(link: socket.socket, heard: Heard) -> None:
    with suppress(BlockingIOError):
        while uid := link.recv(128):
            heard(uid.decode())
