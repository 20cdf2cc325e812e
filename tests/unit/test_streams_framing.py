"""Frames on engined's socket, and the window of acknowledgements."""

from __future__ import annotations

import asyncio
import socket

import pytest

from engine.errors import InvalidInput
from engine.streams import follow
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


async def test_a_stream_that_is_refused_says_why() -> None:
    """What its pump will not do and what its reader said wrong, both with their sentence."""
    stream, theirs = await pair()

    async def refused() -> follow.End:
        raise InvalidInput("neither a file nor a folder: /dev/null", hint="choose another")

    async def waits() -> follow.End:
        await asyncio.Event().wait()
        return {}

    async def heard(message: dict[str, object]) -> None:
        raise InvalidInput(f"no such message here: {message['t']}")

    end = await follow.run(stream, refused(), heard)
    assert (end["code"], end["reason"]) == (4400, "refused")
    assert end["error"]["message"] == "neither a file nor a folder: /dev/null"
    assert end["error"]["hint"] == "choose another"
    theirs.send(pack_json({"t": "nonsense"}))
    end = await follow.run(stream, waits(), heard)
    assert (end["code"], end["reason"]) == (4400, "bad-message")
    assert end["error"]["message"] == "no such message here: nonsense"
    theirs.close()
    with pytest.raises(ConnectionResetError):
        await follow.run(stream, waits(), heard)
    await stream.close()
