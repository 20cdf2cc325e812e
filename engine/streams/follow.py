"""What every stream does besides its bytes: hear its reader.

A stream is a pump (sends) beside an inbox (acks and the like). When the pump returns, its value
is the stream's `end`; when the reader hangs up, the pump is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from engine.errors import InvalidInput
from engine.streams.framing import FrameKind, FrameStream, parse_json

# What comes in small pieces is gathered for this long, so that 50 lines a second are 20 frames.
GATHER_SECONDS = 0.05
End = dict[str, Any]


async def run(
    frames: FrameStream,
    pump: Coroutine[Any, Any, End],
    heard: Callable[[dict[str, Any]], Awaitable[None]],
    heard_bytes: Callable[[bytes], Awaitable[None]] | None = None,
) -> End:
    """The pump's `end`; what it will not do (InvalidInput) ends the stream as "refused", with the
    error, a message that is none as "bad-message". Raises ConnectionResetError when the reader hung
    up first."""
    sending = asyncio.create_task(_told(pump))
    hearing = asyncio.create_task(_hear(frames, heard, heard_bytes))
    try:
        await asyncio.wait({sending, hearing}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            return sending.result()
        hearing.result()
        raise ConnectionResetError("the reader hung up")
    except InvalidInput as error:
        return {"code": 4400, "reason": "bad-message", "error": error.as_dict()}
    finally:
        for task in (sending, hearing):
            task.cancel()
        await asyncio.gather(sending, hearing, return_exceptions=True)


async def _told(pump: Coroutine[Any, Any, End]) -> End:
    try:
        return await pump
    except InvalidInput as error:
        return {"code": 4400, "reason": "refused", "error": error.as_dict()}


async def _hear(
    frames: FrameStream,
    heard: Callable[[dict[str, Any]], Awaitable[None]],
    heard_bytes: Callable[[bytes], Awaitable[None]] | None,
) -> None:
    while frame := await frames.read():
        kind, payload = frame
        if kind is FrameKind.JSON:
            await heard(parse_json(payload))
        elif heard_bytes is None:
            raise InvalidInput("no bytes are taken here")
        else:
            await heard_bytes(payload)


def whole_number(request: dict[str, Any], name: str, absent: int) -> int:
    """A parameter of the first frame or of a message. Raises InvalidInput."""
    value = request.get(name, absent)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 10**15:
        raise InvalidInput(f"{name} is not an offset: {value!r:.40}", field=name)
    return value
