"""engined's streams of a container's files, for views: answers whole, downloads passed through.

Nothing of a download is kept here: the browser's pace is web's, and web's is engined's. When the
browser goes, the socket is closed, and with it ends the work in engined.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from django.conf import settings
from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header

from console.files import shown
from console.views.base import TeamRequest
from engine.errors import EngineError
from engine.models import Container, StreamTicket
from engine.services.tickets import ticket_issue
from engine.streams.asking import SILENCE_SECONDS, Question
from engine.streams.framing import MAX_PAYLOAD, FrameKind, FrameStream


def answer(
    request: TeamRequest, container: Container, action: StreamTicket.Action, **parameters: object
) -> dict[str, Any]:
    """The document engined answers with. Raises what it refuses it for, EngineError."""
    question = _ask(request, container, action, parameters)
    try:
        return question.document()
    finally:
        question.close()


def download(
    request: TeamRequest, container: Container, name: str, **parameters: object
) -> StreamingHttpResponse:
    """A file as it is or a tar, called `name` ("" for the file's own). Raises as `answer`."""
    question = _ask(request, container, StreamTicket.Action.FILES, parameters)
    try:
        found = question.begin()
    except BaseException:
        question.close()
        raise
    size = found["size"]
    if not name:
        name = shown(found["name"] or container.name) + ("" if size is not None else ".tar")
    kind = "application/octet-stream" if size is not None else "application/x-tar"
    response = StreamingHttpResponse(Body(question.socket, size), content_type=kind)
    response.headers["Content-Disposition"] = content_disposition_header(True, name) or ""
    if size is not None:
        response.headers["Content-Length"] = str(size)
    return response


def _ask(
    request: TeamRequest,
    container: Container,
    action: StreamTicket.Action,
    parameters: dict[str, object],
) -> Question:
    session = request.session.session_key or ""
    ticket = ticket_issue(request.user.pk, session, action, container.uid)
    return Question(settings.ENGINE, ticket, parameters)


class Body:
    """What comes after a download's first frame. Django closes it, whether or not it was read."""

    def __init__(self, connection: socket.socket, size: int | None) -> None:
        self._socket = connection
        self._size = size
        self._leave: Callable[[], object] = connection.close

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._socket.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(
            sock=self._socket, limit=2 * MAX_PAYLOAD
        )
        loop = asyncio.get_running_loop()
        # Django closes a response in another thread.
        self._leave = lambda: loop.call_soon_threadsafe(writer.transport.abort)
        frames = FrameStream(reader, writer)
        try:
            sent = 0
            async for piece in _pieces(frames):
                sent += len(piece)
                yield piece
            if self._size not in (None, sent):
                raise EngineError(f"a download of {self._size} bytes ended after {sent}")
        finally:
            await frames.close()

    def close(self) -> None:
        self._leave()


async def _pieces(frames: FrameStream) -> AsyncIterator[bytes]:
    """The headers are gone: what goes wrong now breaks the download off."""
    while True:
        async with asyncio.timeout(SILENCE_SECONDS):
            frame = await frames.read()
        if frame is None:
            raise EngineError("a download broke off before its end")
        kind, payload = frame
        if kind is FrameKind.BINARY:
            yield payload
            continue
        message = json.loads(payload)
        if message["t"] == "end":
            if message["code"] != 1000:
                raise EngineError(f"a download broke off: {message.get('error') or message}")
            return
