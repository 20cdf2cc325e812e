"""Taking over a connection: after the answer's head it is a plain pipe in both directions.

As moby: `101 UPGRADED` when the client sent Upgrade, else 200. A client's half-close is the end of
its stdin and no more: the transport stays open for our output. Both ways are bounded: a client that
sends more than is taken is not read, and a writer waits for a client that does not read.

docker-py loses bytes that arrive in one packet with the head: answer first, then start.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import sys
import termios
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest

from engine.api.call import Call

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
# What a client may have sent and nobody taken; what we may have written and it not read.
_HELD_IN = 256 * 1024
_HELD_OUT = 128 * 1024
_HEAD_LOOKS, _HEAD_SECONDS = 40, 0.002


def content_type(call: Call, *, framed: bool) -> str:
    """Only clients from 1.42 on are told of frames."""
    return MULTIPLEXED if framed and call.version >= (1, 42) else RAW


class Taken(web.StreamResponse):
    """What a handler returns for a connection that is no longer HTTP: nothing more is sent."""

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class Stream(asyncio.Protocol):
    """One taken connection. `read` from one task, `write` from another."""

    def __init__(self, transport: asyncio.Transport, before: asyncio.Protocol) -> None:
        self._transport = transport
        self._before = before
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._eof = False
        self._hung = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.gone = asyncio.Event()
        """The client has closed altogether, or the connection broke."""

    # ---- as asyncio's protocol

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._held += len(data)
        self._readable.set()
        if self._held > _HELD_IN:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        self._readable.set()
        # TLS has no half-close in asyncio: there it ends both directions.
        return not self._hung and self._transport.get_extra_info("sslcontext") is None

    def hung_up(self) -> None:
        """The other end is closed both ways; what it had sent on a unix socket before is still
        taken. After a reset of TCP there is nothing to take."""
        self._hung = True
        found: socket.socket | None = self._transport.get_extra_info("socket")
        if self._eof or found is None or found.family != socket.AF_UNIX:
            self._transport.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        _hang_ups().forget(self._transport, self)
        self._eof = True
        self.gone.set()
        self._readable.set()
        self._writable.set()
        # aiohttp counts its connections and ends its task by this.
        self._before.connection_lost(exc)

    # ---- for the handler

    async def read(self) -> bytes:
        """What has come, at least a byte; empty at the client's half-close or end."""
        while not self._pieces:
            if self._eof:
                return b""
            self._readable.clear()
            await self._readable.wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        was, self._held = self._held, 0
        if was > _HELD_IN and not self.gone.is_set():
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Waits while the client does not read. Raises ConnectionResetError when it is gone."""
        if not self.gone.is_set():
            self._transport.write(data)
            await self._writable.wait()
        if self.gone.is_set():
            raise ConnectionResetError("the client is gone")

    async def head_read(self) -> None:
        """Wait until the client has read the answer's head, a stroke of time at most: for who has
        something to say at once. No event tells it; a unix socket's queue does."""
        found: socket.socket | None = self._transport.get_extra_info("socket")
        if found is None or found.family != socket.AF_UNIX:
            return
        for _ in range(_HEAD_LOOKS):
            if self.gone.is_set() or not _unread(found):
                return
            await asyncio.sleep(_HEAD_SECONDS)

    async def finish(self) -> None:
        """Close once the client has read all; returns when that is so or it is gone."""
        self._transport.close()
        await self.gone.wait()


def _unread(connection: socket.socket) -> int:
    """Bytes, with what the kernel needs for them, that the other end has not taken (unix(7))."""
    answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


@asynccontextmanager
async def taken(call: Call, kind: str) -> AsyncIterator[Stream]:
    """The connection of `call`, answered and taken over; closed at the end of the block."""
    request = call.request
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    before = request.protocol
    stream = Stream(transport, before)
    upgrade = "upgrade" in request.headers.get("Connection", "").lower()
    head = (
        f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        if upgrade
        else f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n"
    )
    # aiohttp keeps what came behind an upgrade's head, and says so in no public way.
    early, before._message_tail = before._message_tail, b""
    transport.write(head.encode())
    transport.set_protocol(stream)
    transport.set_write_buffer_limits(high=_HELD_OUT)
    transport.resume_reading()
    if early:
        stream.data_received(early)
    _hang_ups().watch(transport, stream)
    try:
        yield stream
    finally:
        transport.close()


class _HangUps:
    """A half-close and a hang-up look alike to asyncio until something is written; epoll tells a
    unix socket's hang-up, and a TCP connection's reset, even where nobody waits to read. (Over TLS
    a half-close is TLS's own, and the end of the connection below it a hang-up: see tls.) One
    descriptor in the loop for all."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._streams: dict[int, Stream] = {}
        self._loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, transport: asyncio.Transport, stream: Stream) -> None:
        found: socket.socket | None = transport.get_extra_info("socket")
        if found is not None and found.fileno() >= 0:
            self._streams[found.fileno()] = stream
            self._epoll.register(found.fileno(), 0)

    def forget(self, transport: asyncio.Transport, stream: Stream) -> None:
        """Before its descriptor is closed and may be somebody else's."""
        found: socket.socket | None = transport.get_extra_info("socket")
        descriptor = found.fileno() if found is not None else -1
        if self._streams.get(descriptor) is stream:
            del self._streams[descriptor]
            with suppress(OSError):
                self._epoll.unregister(descriptor)

    def _ready(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            stream = self._streams.pop(descriptor, None)
            with suppress(OSError):
                self._epoll.unregister(descriptor)
            if stream is not None:
                stream.hung_up()

    def usable(self) -> bool:
        return self._loop is asyncio.get_running_loop()


_kept: _HangUps | None = None


def _hang_ups() -> _HangUps:
    global _kept
    if _kept is None or not _kept.usable():
        _kept = _HangUps()
    return _kept
