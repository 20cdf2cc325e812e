"""Frames on engined's internal socket: `[u32 length][u8 kind][payload]`, big-endian.

Both ends use `FrameStream`; what the payloads say is up to them. JSON payloads are one object
with a key `t`; binary payloads that carry output begin with a u64 offset (`with_offset`).
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from engine.errors import InvalidInput

HEADER = struct.Struct(">IB")
OFFSET = struct.Struct(">Q")
# Output is cut at 64 KiB and a person's stdin frame too; the rest is room for JSON and headers.
MAX_PAYLOAD = 64 * 1024 + 4096
# Beyond this much unsent, `send` waits: the reader decides the pace, not our memory.
HIGH_WATER = 128 * 1024


class FrameKind(IntEnum):
    JSON = 1
    BINARY = 2


def pack(kind: FrameKind, payload: bytes) -> bytes:
    return HEADER.pack(len(payload), kind) + payload


def pack_json(message: Mapping[str, Any]) -> bytes:
    return pack(FrameKind.JSON, json.dumps(message, separators=(",", ":")).encode())


def with_offset(offset: int, data: bytes) -> bytes:
    """`[u64 offset][data]`: the form of all output."""
    return OFFSET.pack(offset) + data


def parse_json(payload: bytes | str) -> dict[str, Any]:
    """One JSON object with a text `t`. Raises InvalidInput."""
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("a message is not JSON") from error
    if not isinstance(message, dict) or not isinstance(message.get("t"), str):
        raise InvalidInput("a message is not an object with a key t")
    return message


class FrameStream:
    """One connection's frames. One task reads, any task may send: a frame is written whole."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=HIGH_WATER)

    async def read(self) -> tuple[FrameKind, bytes] | None:
        """The next frame; None at the end of the connection, however it came about.

        Raises InvalidInput for a frame of an unknown kind or over MAX_PAYLOAD."""
        try:
            length, kind = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            if length > MAX_PAYLOAD:
                raise InvalidInput(f"a frame of {length} bytes is over {MAX_PAYLOAD}")
            if kind not in (FrameKind.JSON, FrameKind.BINARY):
                raise InvalidInput(f"a frame of unknown kind {kind}")
            return FrameKind(kind), await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def send(self, message: Mapping[str, Any]) -> None:
        await self._write(pack_json(message))

    async def send_bytes(self, payload: bytes) -> None:
        self._writer.write(HEADER.pack(len(payload), FrameKind.BINARY))
        await self._write(payload)

    async def _write(self, data: bytes) -> None:
        """Raises ConnectionError when the other end is gone."""
        self._writer.write(data)
        await self._writer.drain()

    async def linger(self, seconds: float) -> None:
        """Let the other end close first, discarding what it still sends.

        A unix socket closed over unread bytes is reset, and what the other end had not read yet
        (our last words) is lost with it."""
        try:
            async with asyncio.timeout(seconds):
                while await self._reader.read(MAX_PAYLOAD):
                    pass
        except (TimeoutError, ConnectionError):
            pass  # closed in any case

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            pass  # it is closed all the same
