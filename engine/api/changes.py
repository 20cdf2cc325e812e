"""Waiting for rows to change: a doorbell that services ring, and a look each second in case it is
lost. Lives on the API's event loop; nothing here polls faster than that."""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from engine.config import EngineConfig
from engine.events import Kind
from engine.publish import doorbell_path

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
_T = TypeVar("_T")
# (kind, primary key); ("namespace", its key) hears everything of that namespace.
Topic = tuple[str, str]


def topic(kind: Kind, id: int | str) -> Topic:
    return (str(kind), str(id))


def everything(namespace_id: int) -> Topic:
    return ("namespace", str(namespace_id))


class Changes:
    """Who waits for what in this process."""

    def __init__(self) -> None:
        self._waiting: dict[Topic, set[asyncio.Event]] = {}

    async def until(self, check: Callable[[], Awaitable[_T | None]], *topics: Topic) -> _T:
        """What `check` returns once it is not None: asked now, and after each change of a topic."""
        wake = asyncio.Event()
        for one in topics:
            self._waiting.setdefault(one, set()).add(wake)
        try:
            while True:
                wake.clear()
                found = await check()
                if found is not None:
                    return found
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await wake.wait()
        finally:
            for one in topics:
                waiting = self._waiting[one]
                waiting.discard(wake)
                if not waiting:
                    del self._waiting[one]

    def ring(self, *topics: Topic) -> None:
        for one in topics:
            for wake in self._waiting.get(one, ()):
                wake.set()

    def listen(self, config: EngineConfig) -> socket.socket:
        """The doorbell's socket, heard from now on; close it at the end. Root's, and web's group's:
        pages change rows too. A ring says where to look and nothing else."""
        path = doorbell_path(config)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.unlink(missing_ok=True)
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        bell.setblocking(False)
        bell.bind(str(aside))
        with suppress(KeyError):
            web = pwd.getpwnam(os.environ.get("QUAYSIDE_WEB_USER", "quayside"))
            os.chown(aside, 0, web.pw_gid)
        aside.chmod(0o660)
        aside.rename(path)
        asyncio.get_running_loop().add_reader(bell, self._hear, bell)
        return bell

    def _hear(self, bell: socket.socket) -> None:
        with suppress(BlockingIOError):
            while True:
                words = bell.recv(512).decode("utf-8", "replace").split(" ", 2)
                if len(words) == 3:
                    self.ring((words[1], words[2]), ("namespace", words[0]))


changes = Changes()
