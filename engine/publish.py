"""Tells the channel layer which row changed, after the transaction that changed it.

A thread of its own holds the one event loop and connection of this process: services are
synchronous and must neither wait for Redis nor fail with it. Redis being away costs watchers a
refresh (they refetch when their socket comes back), so that is logged once and not raised.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from channels.layers import get_channel_layer
from django.conf import settings
from django.db import transaction
from redis.exceptions import RedisError

from engine.config import EngineConfig
from engine.events import Changed, Kind, group_of

logger = logging.getLogger(__name__)


class _Publisher:
    """One event loop in one daemon thread, made at the first use and again after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._away = False

    def send(self, namespace_id: int, change: Changed) -> None:
        asyncio.run_coroutine_threadsafe(
            self._send(group_of(namespace_id), change), self._running_loop()
        ).add_done_callback(self._done)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop = asyncio.new_event_loop()
                self._pid = os.getpid()
                threading.Thread(
                    target=self._loop.run_forever, name="publisher", daemon=True
                ).start()
            return self._loop

    async def _send(self, group: str, change: Changed) -> None:
        layer = get_channel_layer()
        message = {"type": "event.changed", **change.as_message()}
        await layer.group_send(group, message)

    def _done(self, future: Future[None]) -> None:
        error = future.exception()
        if error is None:
            self._away = False
        elif isinstance(error, RedisError | OSError):
            if not self._away:
                logger.warning("redis is away, watchers are not told of changes: %s", error)
            self._away = True
        else:
            logger.error("publishing a change failed", exc_info=error)


class _Doorbell:
    """A datagram to engined's API process, which waits for rows to change: it must hear of them
    also while Redis is away. Lost ones cost a second, for it looks at what it waits for anyway."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._pid = 0

    def ring(self, namespace_id: int, kind: str, id: str) -> None:
        if self._socket is None or self._pid != os.getpid():
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
            self._pid = os.getpid()
        text = f"{namespace_id} {kind} {id}"
        with suppress(OSError):  # nobody there, or behind
            self._socket.sendto(text.encode(), str(doorbell_path(settings.ENGINE)))


def doorbell_path(config: EngineConfig) -> Path:
    return config.run_dir / "doorbell.sock"


_publisher = _Publisher()
_doorbell = _Doorbell()


def changed(namespace_id: int, kind: Kind, id: int | str) -> None:
    """Send `Changed` once the current transaction is committed (at once outside of one)."""
    change = Changed(kind, str(id), time.time_ns() // 1_000_000)
    transaction.on_commit(lambda: _tell(namespace_id, change))


def happened(namespace_id: int, event_id: int) -> None:
    """An Event was written: for who follows them in the API, and no page."""
    transaction.on_commit(lambda: _doorbell.ring(namespace_id, "event", str(event_id)))


def _tell(namespace_id: int, change: Changed) -> None:
    _doorbell.ring(namespace_id, change.kind, change.id)
    _publisher.send(namespace_id, change)
