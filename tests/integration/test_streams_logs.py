"""Logs through all processes: engined, web, a socket. Nothing lost or doubled, ends told."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterable

import aiohttp

from tests.box_site import BoxSite
from tests.sockets import Socket, signed_in

COUNT = "i=0; while [ $i -lt {n} ]; do echo line $i; i=$((i+1)); done"


def lines(log: bytes) -> list[str]:
    """What a page makes of it: a part marked P goes on in its stream's next."""
    found: list[str] = []
    begun: dict[bytes, bytes] = {}
    for entry in log.splitlines():
        _, stream, tag, text = entry.split(b" ", 3)
        begun[stream] = begun.get(stream, b"") + text
        if tag == b"F":
            found.append(begun.pop(stream).decode())
    return found


def whole(frames: Iterable[tuple[int, bytes]]) -> bytes:
    """Frames put together; each must begin where the last one ended."""
    result, at = b"", None
    for offset, data in frames:
        assert at is None or offset == at, (offset, at)
        result, at = result + data, offset + len(data)
    return result


async def acked(socket: Socket) -> Socket:
    """As a page does: acknowledge what was taken."""
    offset, data = socket.frames[-1]
    await socket.send(t="ack", offset=offset + len(data))
    return socket


async def follow(socket: Socket, last: bytes) -> None:
    """Until `last` has come, acknowledging on the way."""
    at = 0
    async with asyncio.timeout(30):
        while last not in (socket.frames[-1][1][-200:] if socket.frames else b""):
            assert await socket.take(), socket.messages
            if sum(len(data) for _, data in socket.frames[at:]) > 64 * 1024:
                at = len(socket.frames)
                await acked(socket)


async def test_from_the_start_the_tail_and_an_offset(box_site: BoxSite) -> None:
    box = box_site.run(f"{COUNT.format(n=3000)}; echo end; sleep 600")
    async with signed_in(box_site.url) as person:
        async with person.socket(f"/ws/logs/{box.uid}/?from=0") as socket:
            await follow(socket, b"end\n")
            log = whole(socket.frames)
            assert lines(log) == [f"line {n}" for n in range(3000)] + ["end"]
            hello = socket.of("hello")
            assert hello and (hello["from"], hello["running"], hello["tty"]) == (0, True, False)
        async with person.socket(f"/ws/logs/{box.uid}/?from=-3") as socket:
            await socket.until_bytes(b"end\n")
            assert lines(whole(socket.frames)) == ["line 2998", "line 2999", "end"]
        # In the middle of a line: exactly there.
        async with person.socket(f"/ws/logs/{box.uid}/?from={len(log) - 7}") as socket:
            await socket.until_bytes(b"end\n")
            assert socket.frames[0] == (len(log) - 7, log[-7:])


async def test_nothing_is_lost_over_a_reconnect_while_it_writes(box_site: BoxSite) -> None:
    box = box_site.run("i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); sleep 0.005; done")
    frames: list[tuple[int, bytes]] = []
    async with signed_in(box_site.url) as person:
        at = 0
        while b"line 399\n" not in b"".join(data for _, data in frames[-3:]):
            async with person.socket(f"/ws/logs/{box.uid}/?from={at}") as socket:
                for _ in range(4):
                    had = len(socket.frames)
                    await socket.until(lambda s, had=had: len(s.frames) > had)
                    if b"line 399\n" in socket.bytes:
                        break
                frames += socket.frames
                at = frames[-1][0] + len(frames[-1][1])
    assert lines(whole(frames)) == [f"line {n}" for n in range(400)]


async def test_the_end_is_told_and_a_restart_goes_on(box_site: BoxSite) -> None:
    box = box_site.run("echo begins; sleep 0.3; echo ends >&2; exit 7")
    async with signed_in(box_site.url) as person:
        async with person.socket(f"/ws/logs/{box.uid}/?from=0") as socket:
            await socket.until(lambda s: s.of("exit"))
            assert socket.of("exit") == {"t": "exit", "code": 7, "by_hand": False}
            assert lines(socket.bytes) == ["begins", "ends"]
            assert b" stderr F ends\n" in socket.bytes
            box_site.operate(box, "start")
            await socket.until(lambda s: s.bytes.count(b"ends") == 2)
            assert lines(whole(socket.frames)) == ["begins", "ends"] * 2
            await socket.until(lambda s: len([m for m in s.messages if m["t"] == "exit"]) == 2)
        # A stopped container's log stays readable.
        async with person.socket(f"/ws/logs/{box.uid}/?from=-2") as socket:
            await socket.until_bytes(b"ends\n")
            hello = socket.of("hello")
            assert hello and (hello["running"], hello["exit_code"]) == (False, 7)
            box_site.operate(box, "remove")
            assert await socket.closed() == 4404
            assert socket.of("end") == {
                "t": "end",
                "code": 4404,
                "reason": "gone",
                "again": False,
            }


async def test_a_reader_that_does_not_acknowledge_gets_its_window_and_no_more(
    box_site: BoxSite,
) -> None:
    box = box_site.run(f"{COUNT.format(n=20000)}; sleep 600")
    async with (
        signed_in(box_site.url) as person,
        person.socket(f"/ws/logs/{box.uid}/?from=0") as socket,
    ):
        await socket.until(lambda s: len(s.bytes) >= 256 * 1024)
        try:
            async with asyncio.timeout(0.5):
                await socket.take()
        except TimeoutError:
            pass
        assert len(socket.bytes) <= 320 * 1024
        await acked(socket)
        await socket.until(lambda s: len(s.bytes) > 400 * 1024)


async def test_a_stopped_reader_holds_up_nobody_and_hides_no_exit(box_site: BoxSite) -> None:
    box = box_site.run(f"read go; {COUNT.format(n=30000)}; exit 5", open_stdin=True)
    async with (
        signed_in(box_site.url) as person,
        person.socket(f"/ws/logs/{box.uid}/?from=0") as stalled,
        person.socket(f"/ws/logs/{box.uid}/?from=0") as reader,
    ):
        await stalled.until(lambda s: s.of("hello"))
        session = box_site.terminal(box, kind="attach")
        async with person.socket(f"/ws/terminals/{session}/") as terminal:
            await terminal.until(lambda s: s.of("hello"))
            await terminal.send(t="resize", cols=80, rows=24)
            await terminal.type(b"go\n")
            # The terminal's page now sleeps too.
            await follow(reader, b"line 29999\n")
            await reader.until(lambda s: s.of("exit"), 5)
            assert reader.of("exit") == {"t": "exit", "code": 5, "by_hand": False}


async def test_engined_killed_and_started_again_costs_a_reconnect(box_site: BoxSite) -> None:
    box = box_site.run("i=0; while true; do echo line $i; i=$((i+1)); sleep 0.02; done")
    async with signed_in(box_site.url) as person:
        async with person.socket(f"/ws/logs/{box.uid}/?from=0") as socket:
            await socket.until_bytes(b"line 5\n")
            os.kill(box_site.site.pids("engined")[0], signal.SIGKILL)
            assert await socket.closed() == 1012
            end = socket.of("end")
            assert end and end["again"] is True
            frames = socket.frames
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            at = frames[-1][0] + len(frames[-1][1])
            async with person.socket(f"/ws/logs/{box.uid}/?from={at}") as socket:
                await socket.until(lambda s: s.frames or s.of("end"))
                if socket.frames:
                    await socket.until(lambda s: len(s.frames) > 5)
                    frames = frames + socket.frames
                    break
            await asyncio.sleep(0.2)
        found = lines(whole(frames))
        assert found == [f"line {n}" for n in range(len(found))]
        assert len(found) > 10


async def test_the_download_is_what_the_program_wrote(box_site: BoxSite) -> None:
    box = box_site.run(
        "printf 'no newline'; sleep 0.1; echo ' here'; head -c 90000 /dev/zero | tr '\\0' x; echo; "
        # conmon keeps no order between the two streams: the last word comes well after the rest.
        f"{COUNT.format(n=4000)}; echo '한글'; sleep 0.5; echo oops >&2; sleep 600"
    )
    async with signed_in(box_site.url) as person:
        async with person.socket(f"/ws/logs/{box.uid}/?from=-1") as socket:
            await socket.until(lambda s: s.of("hello"))
            await socket.until_bytes(b"oops\n")
        path = f"/t/team/containers/{box.name}/logs/download/"
        async with person.http.get(path, params={"times": "0"}) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["Content-Disposition"] == f'attachment; filename="{box.name}.log"'
            text = await answer.text()
        expected = ["no newline here", "x" * 90000, *(f"line {n}" for n in range(4000)), "한글"]
        assert text.splitlines()[: len(expected)] == expected
        assert text.endswith("oops\n")
        async with person.http.get(path) as answer:
            timed = (await answer.text()).splitlines()
        assert [line.split(" ", 1)[1] for line in timed][: len(expected)] == expected
        assert all(line[:2] == "20" and "T" in line[:11] for line in timed)
        async with person.http.get("/t/team/containers/nobody/logs/download/") as answer:
            assert answer.status == 404
    async with (
        aiohttp.ClientSession(box_site.url) as nobody,
        nobody.get(path, allow_redirects=False) as answer,
    ):
        assert answer.status == 302
