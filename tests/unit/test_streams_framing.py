"""Frames on engined's socket, and the window of acknowledgements."""

from __future__ import annotations

import asyncio
import socket

import pytest

from engine.errors import InvalidInput
from engine.streams.framing import (
    HEADER,
    MAX_PAYLOAD,
    FrameKind,
    FrameStream,
    pack,
    pack_json,
    parse_json,
    with_offset,
)
from engine.streams.window import Window


async def pair() -> tuple[FrameStream, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    return FrameStream(*await asyncio.open_connection(sock=ours)), theirs


async def test_frames_arrive_whole_however_they_are_cut() -> None:
    stream, theirs = await pair()
    sent = pack_json({"t": "hello"}) + pack(FrameKind.BINARY, with_offset(7, b"data"))
    for byte in sent:
        theirs.send(bytes([byte]))
        await asyncio.sleep(0)
    assert await stream.read() == (FrameKind.JSON, b'{"t":"hello"}')
    assert await stream.read() == (FrameKind.BINARY, b"\0\0\0\0\0\0\0\x07data")
    theirs.send(sent[:9])
    theirs.close()
    assert await stream.read() is None
    await stream.close()


@pytest.mark.parametrize("header", [(MAX_PAYLOAD + 1, 1), (0, 0), (3, 9)])
async def test_a_frame_that_cannot_be_is_refused_unread(header: tuple[int, int]) -> None:
    stream, theirs = await pair()
    theirs.send(HEADER.pack(*header))
    with pytest.raises(InvalidInput):
        await stream.read()
    theirs.close()
    await stream.close()


@pytest.mark.parametrize("text", ["", "[]", "1", '"t"', '{"t":1}', "{}", "[" * 5000, "\ud800"])
def test_a_message_is_an_object_with_its_kind(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_json(text)


async def test_the_window_opens_with_acknowledgements_and_no_further() -> None:
    window = Window(1000, size=100)
    await window.wait()
    window.move(1100)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await window.wait()
    window.ack(900)  # never back
    assert window.acked == 1000
    window.ack(1001)
    await window.wait()
    window.ack(10**9)  # never beyond what was sent
    assert (window.acked, window.behind) == (1100, 0)
    window.restart(5000)
    assert window.behind == 0
