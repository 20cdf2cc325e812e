"""Case 20: frame size, rate and count a person, silence, slow clients, forgotten processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from console.consumers import base, logs, terminals
from console.webserver import INBOUND_HIGH, InboundQueue
from tests.box_site import BoxSite
from tests.sockets import signed_in


async def test_large_text_bytes_and_frames_are_cut_off(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    session = box_site.terminal(box)
    async with signed_in(box_site.url) as person:
        async with person.socket(f"/ws/logs/{box.uid}/") as socket:
            await socket.send(t="ack", more="x" * base.MAX_TEXT)
            assert await socket.closed() == 4413
        async with person.socket(f"/ws/terminals/{session}/") as socket:
            await socket.type(b"x" * (base.MAX_STDIN + 1))
            assert await socket.closed() == 4413
        async with person.socket(f"/ws/terminals/{session}/") as socket:
            await socket.type(b"x" * 200_000)
            assert await socket.closed() in (1006, 1009)


async def test_messages_that_are_none_end_the_socket(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    session = box_site.terminal(box)
    async with signed_in(box_site.url) as person:
        for path in ("/ws/events/", f"/ws/logs/{box.uid}/", f"/ws/terminals/{session}/"):
            for text in ("nonsense", "[]", '{"t": "launch"}'):
                async with person.socket(path) as socket:
                    await socket.ws.send_str(text)
                    assert await socket.closed() == 4400, (path, text)
        async with person.socket(f"/ws/logs/{box.uid}/") as socket:
            await socket.type(b"no bytes here")
            assert await socket.closed() == 4400
        for size in ({"cols": 0, "rows": 5}, {"cols": 10**6, "rows": 5}, {"cols": "8", "rows": 5}):
            async with person.socket(f"/ws/terminals/{session}/") as socket:
                await socket.until(lambda s: s.of("hello"))
                await socket.send(t="resize", **size)
                assert await socket.closed() == 4400


async def test_a_flood_of_messages_ends_the_socket(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    async with (
        signed_in(box_site.url) as person,
        person.socket(f"/ws/logs/{box.uid}/") as socket,
    ):
        for _ in range(int(base.FRAMES_BURST) + 3000):
            if socket.ws.closed:
                break
            await socket.send(t="ack", offset=0)
        assert await socket.closed() == 4429


async def test_a_person_has_only_so_many(box_site: BoxSite) -> None:
    """The limit is a process's; more than all processes' together is refused with its reason."""
    box = box_site.run("sleep 600")
    processes = len(box_site.site.pids("web")) - 1
    most = terminals.TerminalsConsumer.most_per_user * processes
    session = box_site.terminal(box)
    async with signed_in(box_site.url) as person, asyncio.TaskGroup() as group:
        leave = asyncio.Event()
        codes: list[int | None] = []

        async def hold() -> None:
            async with person.socket(f"/ws/terminals/{session}/") as socket:
                await socket.until(lambda s: s.of("hello") or s.of("end"))
                if socket.of("end"):
                    codes.append(await socket.closed())
                else:
                    await leave.wait()

        for _ in range(most + 3):
            group.create_task(hold())
        for _ in range(400):
            if len(codes) >= 3:
                break
            await asyncio.sleep(0.02)
        leave.set()
        assert len(codes) >= 3 and set(codes) == {4429}


def test_what_an_application_has_not_taken_stops_the_reading() -> None:
    class Transport:
        reading = True

        def pauseProducing(self) -> None:
            self.reading = False

        def resumeProducing(self) -> None:
            self.reading = True

        def registerProducer(self, producer: object, streaming: bool) -> None: ...
        def unregisterProducer(self) -> None: ...
        def abortConnection(self) -> None: ...

    transport = Transport()
    queue = InboundQueue(lambda: transport)
    count = 0
    while transport.reading:
        queue.put_nowait({"type": "websocket.receive", "bytes": b"x" * 1000})
        count += 1
    assert count * 1000 < INBOUND_HIGH * 1.1
    while not transport.reading:
        queue.get_nowait()
    for _ in range(10_000):  # empty frames weigh too
        queue.put_nowait({"type": "websocket.receive", "bytes": b""})
        if not transport.reading:
            break
    assert not transport.reading


async def test_a_program_that_reads_no_input_holds_up_only_its_own_typing(
    box_site: BoxSite,
) -> None:
    box = box_site.run("sleep 600")
    session = box_site.terminal(box, "sh", "-c", "stty raw -echo; echo ready; sleep 600")
    async with (
        signed_in(box_site.url) as person,
        person.socket(f"/ws/terminals/{session}/") as socket,
    ):
        await socket.until(lambda s: s.of("hello"))
        await socket.send(t="resize", cols=80, rows=24)
        await socket.until_bytes(b"ready")
        connection = socket.ws._response.connection
        assert connection is not None and connection.transport is not None
        transport = connection.transport
        sizes = [_resident(pid) for pid in box_site.site.pids("web")[1:]]
        sending = asyncio.create_task(_pour(socket.ws.send_bytes, 400))
        await asyncio.sleep(2)
        grown = [
            _resident(pid) - size
            for pid, size in zip(box_site.site.pids("web")[1:], sizes, strict=True)
        ]
        assert max(grown) < 8 * 1024 * 1024
        async with person.socket(f"/ws/logs/{box.uid}/") as other:
            await other.send(t="ping")
            await other.until(lambda s: s.of("pong"), 2)
        # With the program gone nothing waits any more.
        await asyncio.to_thread(box_site.operate, box, "kill")
        assert await socket.closed() == 1000
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        transport.abort()  # what was poured and never read


async def _pour(send: object, frames: int) -> None:
    assert callable(send)
    for _ in range(frames):
        await send(b"x" * base.MAX_STDIN)


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_limits_are_set() -> None:
    assert base.SILENT_SECONDS <= 60
    assert logs.LogsConsumer.most_per_user <= 50
