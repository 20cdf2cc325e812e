"""What every websocket of ours does: checked before it is accepted, watched while it is open.

Order at the door: origin, session, the object's permission (`allowed`), the person's limit. What
fails before the limit is refused unaccepted, so that nothing of the object shows; the page asks
/session/ why. A socket that ends says so in an `end` message before its close frame.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar

from channels.generic.websocket import AsyncWebsocketConsumer

from console.consumers.access import Visitor, origin_refusal, request_of, visitor_of
from console.consumers.registry import registry
from console.orm import orm
from console.permissions import Permission
from engine.errors import InvalidInput
from engine.streams.framing import parse_json

logger = logging.getLogger(__name__)

PING_SECONDS = 20.0
# Two pings unanswered and the network's own delay.
SILENT_SECONDS = 60.0
MAX_TEXT = 4096
MAX_STDIN = 64 * 1024
# A person types, pastes and scrolls below this; mouse reports of a terminal come near.
FRAMES_PER_SECOND = 500.0
FRAMES_BURST = 2000.0


class SocketConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Subclasses set `permission`, and write `allowed`, `opened` and what they take."""

    permission: ClassVar[Permission]
    most_per_user: ClassVar[int] = 50
    takes_bytes: ClassVar[bool] = False
    # Only events need a channel layer; others name one that does not exist and get none.
    channel_layer_alias = "none"
    visitor: Visitor

    def __init__(self) -> None:
        super().__init__()
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished = False
        self._open = False
        self._heard = time.monotonic()
        self._frames = FRAMES_BURST

    def allowed(self, visitor: Visitor) -> bool:
        """Whether this person may have this socket; a kind that does not say has no visitors.
        Runs in an ORM thread."""
        return False

    async def opened(self) -> None:
        """The socket is accepted."""

    async def heard(self, message: dict[str, Any]) -> None:
        """A JSON message other than ping and pong."""
        raise InvalidInput(f"no such message here: {message['t']}")

    async def heard_bytes(self, data: bytes) -> None:
        """A binary frame of at most MAX_STDIN bytes; only if `takes_bytes`."""

    async def dispatch(self, message: MutableMapping[str, Any]) -> None:
        """As Channels', without its database check a message: ORM calls here go by `orm`."""
        await getattr(self, message["type"].replace(".", "_"))(message)

    async def connect(self) -> None:
        request = request_of(self.scope)
        refusal = origin_refusal(request)
        if not refusal:
            visitor = await orm(visitor_of, request)
            if visitor is None:
                refusal = "signed out"
            elif not await orm(self.allowed, visitor):
                refusal = f"user {visitor.user.pk} may not, or it is gone"
            else:
                self.visitor = visitor
        if refusal:
            logger.warning("refused %s: %s", self.scope["path"], refusal)
            self._finished = True
            await self.close()
            return
        await self.accept()
        self._open = True
        if registry.leaving:
            await self.finish(1012, "restart", again=True)
        elif not registry.add(self):
            await self.finish(4429, "too-many")
        else:
            self.spawn(self._keep_alive())
            await self.opened()

    def spawn(self, coroutine: Any) -> None:
        """Run beside the socket, cancelled with it; a failure closes the socket."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("%s failed", self.scope["path"], exc_info=error)
            if not self._finished:
                self.spawn(self.finish(1011, "failed", again=True))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        now = time.monotonic()
        self._frames = min(FRAMES_BURST, self._frames + (now - self._heard) * FRAMES_PER_SECOND) - 1
        self._heard = now
        if self._finished:
            return
        if self._frames < 0:
            await self.finish(4429, "too-fast")
        elif len(text_data or "") > MAX_TEXT or len(bytes_data or b"") > MAX_STDIN:
            await self.finish(4413, "too-much")
        else:
            try:
                await self._take(text_data, bytes_data)
            except InvalidInput as error:
                logger.info("bad message on %s: %s", self.scope["path"], error.message)
                await self.finish(4400, "bad-message")

    async def _take(self, text: str | None, data: bytes | None) -> None:
        if text is None:
            if not self.takes_bytes:
                raise InvalidInput("no bytes are taken here")
            await self.heard_bytes(data or b"")
            return
        message = parse_json(text)
        if message["t"] == "ping":
            await self.tell({"t": "pong"})
        elif message["t"] != "pong":
            await self.heard(message)

    async def tell(self, message: Mapping[str, Any]) -> None:
        await self.send(text_data=json.dumps(message, separators=(",", ":")))

    async def finish(self, code: int, reason: str, *, again: bool = False) -> None:
        """Tell the page why, then close. `again`: it may connect again, from where it was."""
        if self._finished:
            return
        self._finished = True
        self.release()
        try:
            # A reader that stalls must not delay the close: what waits is only its buffer.
            async with asyncio.timeout(1):
                await self.tell({"t": "end", "code": code, "reason": reason, "again": again})
        except TimeoutError:
            pass
        await self.close(code, reason)

    async def finish_with(self, message: Mapping[str, Any]) -> None:
        """Close with engined's own `end`, passed on with all it says."""
        self._finished = True
        self.release()
        await self.tell(message)
        await self.close(int(message.get("code", 1000)), str(message.get("reason", "")))

    async def disconnect(self, code: int) -> None:
        self._finished = True
        self.release()

    def release(self) -> None:
        """Give up what the socket holds; called at every kind of end."""
        registry.discard(self)
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            if time.monotonic() - self._heard > SILENT_SECONDS:
                await self.finish(4408, "idle", again=True)
                return
            await self.tell({"t": "ping"})


class UnknownConsumer(SocketConsumer):
    """Every address that is no socket of ours."""

    permission = Permission.SIGNED_IN

    def allowed(self, visitor: Visitor) -> bool:
        return False
