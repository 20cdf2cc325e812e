"""Daphne with its gaps closed: back-pressure both ways, close reasons, bounded bodies, a farewell.

Daphne writes without ever waiting (a reader that stalls on 400 MB costs 400 MB) and queues what
comes in without bound. Here a send waits while the transport is full, a transport is not read
while its application has too much to eat, and a closing socket carries its reason. The processes
themselves are `console.serve`'s.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Protocol

from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.server import Server
from daphne.ws_protocol import WebSocketProtocol
from twisted.internet import defer, reactor

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Application = Callable[..., Awaitable[None]]

# An upload's piece is at most 8 MiB (console.settings); anything larger is refused unread.
MAX_BODY = 9 * 1024 * 1024
# One frame from a browser: stdin is cut at 64 KiB, JSON is far smaller.
MAX_FRAME = 128 * 1024
# What an application has not taken yet of one socket; beyond it the socket is not read.
INBOUND_HIGH = 512 * 1024
INBOUND_LOW = 128 * 1024
# A reader that takes nothing for so long is dropped.
STALLED_SECONDS = 120.0
# Close reasons are cut to what a close frame holds (RFC 6455, 5.5).
MAX_REASON = 120


class Transport(Protocol):
    """What is used of Twisted's TCP transport."""

    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def registerProducer(self, producer: object, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def abortConnection(self) -> None: ...


class Flow:
    """Twisted's IPushProducer for one connection: open while its transport takes bytes."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()

    def pauseProducing(self) -> None:
        self._open.clear()

    def resumeProducing(self) -> None:
        self._open.set()

    def stopProducing(self) -> None:
        self._open.set()

    async def wait(self) -> None:
        """Raises TimeoutError when the reader took nothing for STALLED_SECONDS."""
        if not self._open.is_set():
            await asyncio.wait_for(self._open.wait(), STALLED_SECONDS)


class InboundQueue(asyncio.Queue[Message]):
    """An application's inbox that pauses its transport while too much lies in it."""

    def __init__(self, transport: Callable[[], Transport | None]) -> None:
        super().__init__()
        self._transport = transport
        self._bytes = 0
        self._paused = False

    def _put(self, item: Message) -> None:
        super()._put(item)
        self._bytes += _weight(item)
        if self._bytes > INBOUND_HIGH and not self._paused and (transport := self._transport()):
            self._paused = True
            transport.pauseProducing()

    def _get(self) -> Message:
        item: Message = super()._get()
        self._bytes -= _weight(item)
        if self._paused and self._bytes < INBOUND_LOW and (transport := self._transport()):
            self._paused = False
            transport.resumeProducing()
        return item


def _weight(item: Message) -> int:
    """Bytes, and 256 for the message itself, so that empty frames count too."""
    return 256 + len(item.get("bytes") or b"") + len(item.get("text") or "")


class ReasonedWebSocket(WebSocketProtocol):  # type: ignore[misc]
    """Passes the close reason on, and counts an upgrade as closed only once."""

    def handle_reply(self, message: Message) -> None:
        if message["type"] == "websocket.close" and self.state == self.STATE_OPEN:
            # Not sendClose, which refuses the protocol's own codes such as 1012 (restart).
            reason = _cut(message.get("reason") or "")
            self.sendCloseFrame(code=message.get("code") or 1000, reasonUtf8=reason, isReply=False)
            return
        super().handle_reply(message)


def _cut(reason: str) -> bytes | None:
    """At most MAX_REASON bytes of UTF-8, never half a character."""
    return reason.encode()[:MAX_REASON].decode(errors="ignore").encode() or None


class BoundedRequest(WebRequest):  # type: ignore[misc]
    """Refuses a body over MAX_BODY, by its announced length or as soon as it grows beyond."""

    _body_bytes = 0

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        if length is not None and length > MAX_BODY:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > MAX_BODY:
            self._refuse()
            return
        super().handleContentChunk(data)

    def _refuse(self) -> None:
        channel, self._body_bytes = self.channel, MAX_BODY
        if channel is not None:
            channel.transport.write(
                b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            channel.loseConnection()

    def connectionLost(self, reason: object) -> None:
        if self.producer is not None:
            self.producer.stopProducing()
        super().connectionLost(reason)


class BoundedHTTPFactory(HTTPFactory):  # type: ignore[misc]
    def buildProtocol(self, addr: object) -> Any:
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = BoundedRequest
        return protocol


class WebServer(Server):  # type: ignore[misc]
    """Serves `application` on a listening socket inherited from `console.serve`.

    `farewell` runs at shutdown while sockets can still be written to; it may take 3 s."""

    def __init__(
        self,
        application: Application,
        listening: socket.socket,
        farewell: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(
            application,
            endpoints=["inherited"],
            ready_callable=self._adopt,
            server_name="quayside",
            websocket_timeout=-1,
            websocket_max_message_size=MAX_FRAME,
            websocket_max_frame_size=MAX_FRAME,
        )
        self.endpoints: list[str] = []
        self._listening = listening
        self._farewell = farewell

    def _adopt(self) -> None:
        """Runs just before the reactor does, when Daphne's factories exist."""
        self.ws_factory.protocol = ReasonedWebSocket
        self.http_factory = BoundedHTTPFactory(self)
        self._listening.setblocking(False)
        reactor.adoptStreamPort(self._listening.fileno(), self._listening.family, self.http_factory)

    def create_application(self, protocol: Any, scope: Message) -> InboundQueue | None:
        scope.setdefault("asgi", {"version": "3.0"})
        queue = InboundQueue(
            (lambda: protocol.transport) if scope["type"] == "websocket" else (lambda: None)
        )
        running = self.application(
            scope=scope, receive=queue.get, send=partial(self.handle_reply, protocol)
        )
        if protocol not in self.connections:
            running.close()
            return None
        self.connections[protocol]["application_instance"] = asyncio.ensure_future(running)
        return queue

    async def handle_reply(self, protocol: Any, message: Message) -> None:
        kind = message["type"]
        details = self.connections.get(protocol)
        if details is None or details.get("disconnected"):
            return
        ending = kind == "http.response.body" and not message.get("more_body", False)
        if ending and protocol.producer is not None and protocol.channel is not None:
            protocol.unregisterProducer()
        await super().handle_reply(protocol, message)
        if kind not in ("websocket.send", "http.response.body") or ending:
            return
        flow = self._flow(protocol, details, websocket=kind == "websocket.send")
        if flow is None:
            return
        try:
            await flow.wait()
        except TimeoutError:
            logger.info("dropped a reader that took nothing for %.0f s", STALLED_SECONDS)
            transport = _transport(protocol)
            if transport is not None:
                transport.abortConnection()

    def _flow(self, protocol: Any, details: Message, *, websocket: bool) -> Flow | None:
        """The connection's flow, registered with its transport at the first use."""
        flow: Flow | None = details.get("flow")
        if flow is not None:
            return flow
        if websocket:
            transport = _transport(protocol)
            if transport is None:
                return None
            # The HTTP channel this socket was upgraded from is still registered.
            transport.unregisterProducer()
            flow = details["flow"] = Flow()
            transport.registerProducer(flow, True)
        elif protocol.channel is not None and not protocol.finished:
            flow = details["flow"] = Flow()
            protocol.registerProducer(flow, True)
        return flow

    def kill_all_applications(self) -> defer.Deferred[None]:
        """Say good-bye to the sockets, then cancel what still runs. Called by Daphne at the end."""
        return defer.Deferred.fromFuture(asyncio.ensure_future(self._shut_down()))

    async def _shut_down(self) -> None:
        try:
            await asyncio.wait_for(self._farewell(), 3)
        except TimeoutError:
            logger.warning("some sockets did not close in time")
        running = [
            details["application_instance"]
            for details in self.connections.values()
            if "application_instance" in details
        ]
        for application in running:
            application.cancel()
        if running:
            await asyncio.wait(running, timeout=2)


def _transport(protocol: Any) -> Transport | None:
    """A request's transport is its channel's; Twisted forgets it when the client is gone."""
    if isinstance(protocol, WebRequest):
        return protocol.channel.transport if protocol.channel is not None else None
    return protocol.transport  # type: ignore[no-any-return]
