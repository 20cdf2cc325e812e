"""TLS with half-closes, which asyncio's own has not: a client that has sent all its input goes on
reading our output (`docker run` over TCP says so with TLS's close_notify).

A transport of decrypted bytes over a TCP transport, for any asyncio protocol. Waiting works through
both: a reader that is slow fills the TCP transport's buffer, which pauses who writes here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from engine.api.bounds import HANDSHAKE_SECONDS, KEEPALIVE

_PIECE = 64 * 1024


class TlsProtocol(asyncio.Protocol):
    """What a listening TCP server makes for each connection; `factory` makes the protocol that
    speaks inside of it, once the handshake is done."""

    def __init__(self, context: ssl.SSLContext, factory: Callable[[], asyncio.Protocol]) -> None:
        self._factory = factory
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._inside: TlsTransport | None = None
        self._ended = False

    # ---- as asyncio's protocol of the TCP connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.raw = transport
        # A machine that went away says nothing; nor do we, while a container is silent.
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        self._patience = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self.advance()

    def eof_received(self) -> bool:
        """The client has closed the connection, or gone: a half-close would be TLS's own."""
        self._end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.cancel()
        if self._inside is not None:
            self._inside.get_protocol().connection_lost(exc)

    def pause_writing(self) -> None:
        if self._inside is not None:
            self._inside.get_protocol().pause_writing()

    def resume_writing(self) -> None:
        if self._inside is not None:
            self._inside.get_protocol().resume_writing()

    # ---- between the two

    def advance(self) -> None:
        """Hand in what has come, as far as it is wanted."""
        try:
            if self._inside is None:
                self._shake_hands()
            while self._inside is not None and self._inside.is_reading() and not self._ended:
                data = self._tls.read(_PIECE)
                if not data:
                    raise ssl.SSLZeroReturnError
                protocol = self._inside.get_protocol()
                assert isinstance(protocol, asyncio.Protocol)
                protocol.data_received(data)
        except ssl.SSLWantReadError:
            pass  # the rest of it is on its way
        except ssl.SSLZeroReturnError:
            self._end()
        except ssl.SSLError:
            self.flush()  # the alert that says why
            self.raw.close()
            return
        self.flush()

    def _shake_hands(self) -> None:
        self._tls.do_handshake()
        self._patience.cancel()
        protocol = self._factory()
        self._inside = TlsTransport(self, protocol)
        protocol.connection_made(self._inside)

    def _end(self) -> None:
        """The client will send no more; whether it still reads, the protocol inside knows."""
        if self._ended:
            return
        self._ended = True
        if self._inside is not None:
            protocol = self._inside.get_protocol()
            assert isinstance(protocol, asyncio.Protocol)
            if not protocol.eof_received():
                self._inside.close()

    def flush(self) -> None:
        if self._outgoing.pending:
            self.raw.write(self._outgoing.read())

    def send(self, data: bytes | bytearray | memoryview) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[self._tls.write(left) :]
        except ssl.SSLError:
            self.raw.abort()
        self.flush()

    def say_end(self) -> None:
        """close_notify: we send no more."""
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self.flush()


class TlsTransport(asyncio.Transport):
    """The decrypted side. Its `sslcontext` is unknown on purpose: that is how others tell asyncio's
    own TLS, without half-closes, from this one."""

    def __init__(self, outside: TlsProtocol, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._outside = outside
        self._protocol = protocol
        self._paused = False
        self._closing = False
        self._said_end = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._outside.raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            with suppress(RuntimeError):  # closed meanwhile
                self._outside.raw.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            with suppress(RuntimeError):
                self._outside.raw.resume_reading()
            # What was decrypted or lies in the buffer already comes without the network's help.
            asyncio.get_running_loop().call_soon(self._outside.advance)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._closing and not self._said_end:
            self._outside.send(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._said_end:
            self._said_end = True
            self._outside.say_end()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._outside.raw.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._outside.raw.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        return self._outside.raw.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._closing or self._outside.raw.is_closing()

    def close(self) -> None:
        if not self._closing:
            self.write_eof()
            self._closing = True
            self._outside.raw.close()

    def abort(self) -> None:
        self._closing = True
        self._outside.raw.abort()
