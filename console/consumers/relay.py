"""A websocket that passes a stream of engined's on: the ticket, then frames both ways.

The pump takes a frame from engined only when the last one is in the socket's buffer, and engined
reads its log only when web has taken the last: a browser that stalls costs a buffer each.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, ClassVar
from urllib.parse import parse_qs

from django.conf import settings
from django.utils import translation

from console.consumers.access import request_of
from console.consumers.base import SocketConsumer
from console.messages import explain
from console.orm import orm
from engine.errors import EngineError, InvalidInput
from engine.models import StreamTicket
from engine.services.tickets import ticket_issue
from engine.streams.client import open_stream
from engine.streams.framing import FrameKind, FrameStream, parse_json

_OFFSET = re.compile(r"-?[0-9]{1,15}")


class RelayConsumer(SocketConsumer):
    """Subclasses name the action, the target and the messages that pass."""

    action: ClassVar[StreamTicket.Action]
    # Query parameters that go to engined: name -> value when absent.
    offsets: ClassVar[dict[str, int]] = {}
    passes: ClassVar[frozenset[str]] = frozenset({"ack"})
    target: str

    def __init__(self) -> None:
        super().__init__()
        self._stream: FrameStream | None = None
        self._ready = asyncio.Event()

    async def opened(self) -> None:
        self.spawn(self._relay())

    def _parameters(self) -> dict[str, str | int | bool]:
        """Raises InvalidInput."""
        query = parse_qs(self.scope["query_string"].decode("latin1"))
        parameters: dict[str, str | int | bool] = {}
        for name, absent in self.offsets.items():
            text = query.get(name, [str(absent)])[-1]
            if not _OFFSET.fullmatch(text):
                raise InvalidInput(f"{name} is not an offset: {text[:40]}", field=name)
            parameters[name] = int(text)
        return parameters

    async def _relay(self) -> None:
        try:
            parameters = self._parameters()
            visitor = self.visitor
            ticket = await orm(
                ticket_issue, visitor.user.pk, visitor.session_key, self.action, self.target
            )
            stream = await open_stream(settings.ENGINE, ticket, parameters)
        except InvalidInput:
            await self.finish(4400, "bad-message")
            return
        except EngineError:
            await self.finish(1012, "engine-away", again=True)
            return
        self._stream = stream
        self._ready.set()
        try:
            await self._pump(stream)
        finally:
            await stream.close()

    async def _pump(self, stream: FrameStream) -> None:
        while frame := await stream.read():
            kind, payload = frame
            if kind is FrameKind.BINARY:
                await self.send(bytes_data=payload)
            elif payload.startswith(b'{"t":"end"'):
                await self.finish_with(self._in_words(parse_json(payload)))
                return
            else:
                await self.send(text_data=payload.decode())
            # Frames that lie ready would otherwise keep this process's other sockets waiting.
            await asyncio.sleep(0)
        await self.finish(1012, "engine-away", again=True)

    def _in_words(self, end: dict[str, Any]) -> dict[str, Any]:
        """An `end` with an error says it in the reader's language too: `text` and `hint`."""
        if not isinstance(error := end.get("error"), dict):
            return end
        chosen = self.visitor.user.language
        browsers = translation.get_language_from_request(request_of(self.scope))
        with translation.override(chosen or browsers):
            found = explain(error)
        return {**end, "text": found.text, "hint": found.hint or found.detail}

    async def heard(self, message: dict[str, Any]) -> None:
        if message["t"] not in self.passes:
            raise InvalidInput(f"no such message here: {message['t']}")
        await self._ready.wait()
        if self._stream is not None:
            await self._forward(self._stream.send(message))

    async def heard_bytes(self, data: bytes) -> None:
        await self._ready.wait()
        if self._stream is not None:
            await self._forward(self._stream.send_bytes(data))

    async def _forward(self, sending: Any) -> None:
        try:
            await sending
        except ConnectionError:
            pass  # the pump sees the same end and says so

    def release(self) -> None:
        self._ready.set()
        super().release()
