"""Terminals through all processes: exec and attach, size first, replay, resume, every end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.box_site import BoxSite
from tests.sockets import Person, Socket, signed_in


@asynccontextmanager
async def opened(
    person: Person, session: str, cols: int = 80, rows: int = 24, seen: int = -1
) -> AsyncIterator[Socket]:
    async with person.socket(f"/ws/terminals/{session}/?seen={seen}") as socket:
        await socket.until(lambda s: s.of("hello") or s.of("end"))
        await socket.send(t="resize", cols=cols, rows=rows)
        yield socket


async def test_an_exec_has_its_size_from_the_first_byte(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    session = box_site.terminal(box, "sh", "-c", "stty size; exit 3")
    async with signed_in(box_site.url) as person, opened(person, session, 97, 31) as socket:
        await socket.until(lambda s: s.of("end"))
        assert socket.bytes == b"31 97\r\n"
        end = socket.of("end")
        assert end and (end["reason"], end["exit_code"], end["code"]) == ("exited", 3, 1000)
        assert await socket.closed() == 1000
    state = "s = TerminalSession.objects.get(pk=pk); result = [s.state, s.exit_code, s.reason]"
    assert box_site.call(state, pk=session) == ["ended", 3, "exited"]
    # Whoever comes later sees what it wrote and how it ended.
    async with signed_in(box_site.url) as person, opened(person, session) as socket:
        await socket.until(lambda s: s.of("end"))
        end = socket.of("end")
        assert end and (end["reason"], end["exit_code"]) == ("exited", 3)


async def test_typing_resizing_hangul_and_a_broken_frame(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    session = box_site.terminal(box)
    async with signed_in(box_site.url) as person, opened(person, session) as socket:
        await socket.until_bytes(b"# ")
        await socket.send(t="resize", cols=120, rows=40)
        await socket.until(lambda s: (s.of("size") or {}).get("cols") == 120)
        await socket.type(b"stty size\r")
        await socket.until_bytes(b"40 120")
        text = "한글".encode()
        await socket.type(b"cat <<X\r" + text[:2])
        await asyncio.sleep(0.05)
        await socket.type(text[2:] + b"\rX\r")
        await socket.until(lambda s: s.bytes.count(text) == 2)


async def test_coming_back_goes_on_at_the_byte_and_a_reload_replays(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    session = box_site.terminal(box)
    async with signed_in(box_site.url) as person:
        async with opened(person, session) as socket:
            await socket.until_bytes(b"# ")
            await socket.type(b"echo one; read x; echo two\r")
            await socket.until_bytes(b"one\r\n")
            seen = socket.frames[-1][0]
        async with opened(person, session, seen=seen) as socket:
            hello = socket.of("hello")
            assert hello and (hello["from"], hello["fresh"]) == (seen, False)
            await socket.type(b"\r")
            await socket.until_bytes(b"two\r\n")
            assert b"one" not in socket.bytes
        async with opened(person, session) as socket:
            hello = socket.of("hello")
            assert hello and hello["fresh"]
            await socket.until_bytes(b"two\r\n")
            assert b"one\r\n" in socket.bytes


async def test_vi_and_top_redraw_after_a_reload(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    session = box_site.terminal(box)
    async with signed_in(box_site.url) as person:
        async with opened(person, session) as socket:
            await socket.until_bytes(b"# ")
            await socket.type(b"yes noise | head -n 300; vi /etc/passwd\r")
            await socket.until_bytes(b"/etc/passwd 1/4")
        async with opened(person, session, 100, 30) as socket:
            # Drawn for the new size: the status line stands on line 30.
            await socket.until_bytes(b"\x1b[30;1H")
            await socket.until_bytes(b"nobody:x:65534")
            await socket.type(b":q\r")
            await socket.type(b"top -d 1\r")
            await socket.until_bytes(b"Load average")
        async with opened(person, session) as socket:
            await socket.until(lambda s: s.bytes.count(b"Load average") >= 2)
            await socket.type(b"qexit\r")
            await socket.until(lambda s: s.of("end"))


async def test_a_container_started_by_its_terminal(box_site: BoxSite) -> None:
    """`docker run -it`: the page comes first, then the start with its size."""
    box = box_site.command(
        "sh", "-c", "stty size; read x; echo got $x; exit 4", start=False, tty=True, open_stdin=True
    )
    session = box_site.terminal(box, kind="attach")
    async with signed_in(box_site.url) as person:
        answer = await person.post(
            f"/t/team/containers/{box.name}/start/", cols="91", rows="28", mode="interactive"
        )
        assert answer in (200, 302, 204), answer
        box_site.call(
            "m = Container.objects.get(pk=pk)\n"
            "if not m.is_running:\n done(container_start(m, 'user:1', size=(91, 28)))",
            pk=box.pk,
        )
        async with opened(person, session, 91, 28) as socket:
            await socket.until_bytes(b"28 91")
            await socket.type(b"hi\r")
            await socket.until(lambda s: s.of("end"))
            assert b"got hi" in socket.bytes
            end = socket.of("end")
            assert end and (end["reason"], end["exit_code"]) == ("exited", 4)
        # The next start is another terminal: it shows its own output alone.
        session = box_site.terminal(box, kind="attach")
        box_site.operate(box, "start")
        async with opened(person, session, 70, 20) as socket:
            await socket.until_bytes(b"\r\n")
            assert b"got hi" not in socket.bytes
            await socket.type(b"x\r")
            await socket.until(lambda s: s.of("end"))


async def test_attach_without_a_tty(box_site: BoxSite) -> None:
    box = box_site.run("while read x; do echo got $x; done; echo over", open_stdin=True)
    session = box_site.terminal(box, kind="attach")
    async with signed_in(box_site.url) as person, opened(person, session) as socket:
        hello = socket.of("hello")
        assert hello and (hello["mode"], hello["tty"]) == ("hands", False)
        await socket.type(b"one\ntwo\n")
        await socket.until_bytes(b"got two\n")
        box_site.operate(box, "kill")
        await socket.until(lambda s: s.of("end"))
        end = socket.of("end")
        assert end and (end["reason"], end["exit_code"]) == ("exited", 137)


async def test_closed_input_is_for_looking_on(box_site: BoxSite) -> None:
    box = box_site.run("echo hello; sleep 600", tty=True)
    session = box_site.terminal(box, kind="attach")
    async with signed_in(box_site.url) as person, opened(person, session) as socket:
        await socket.until_bytes(b"hello\r\n")
        hello = socket.of("hello")
        assert hello and hello["mode"] == "read"
        await socket.type(b"ignored")


async def test_two_windows_have_the_smaller_size(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    session = box_site.terminal(box)
    async with signed_in(box_site.url) as person, opened(person, session, 120, 40) as first:
        await first.until_bytes(b"# ")
        async with opened(person, session, 80, 50) as second:
            await first.until(lambda s: s.of("who") == {"t": "who", "viewers": 2})
            await first.until(lambda s: s.of("size") == {"t": "size", "cols": 80, "rows": 40})
            await second.until(lambda s: s.of("size") == {"t": "size", "cols": 80, "rows": 40})
        await first.until(lambda s: s.of("size") == {"t": "size", "cols": 120, "rows": 40})


async def test_a_stopped_container_ends_its_shells_and_says_so(box_site: BoxSite) -> None:
    box = box_site.run("trap 'exit 0' TERM; while true; do sleep 0.05; done")
    session = box_site.terminal(box)
    async with signed_in(box_site.url) as person, opened(person, session) as socket:
        await socket.until_bytes(b"# ")
        box_site.operate(box, "stop")
        await socket.until(lambda s: s.of("end"))
        assert (socket.of("end") or {})["reason"] == "container-stopped"


async def test_what_cannot_start_says_why(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    session = box_site.terminal(box, "no-such-program")
    async with signed_in(box_site.url) as person, opened(person, session) as socket:
        await socket.until(lambda s: s.of("end"))
        end = socket.of("end")
        assert end and end["reason"] == "start-failed" and "no-such-program" in end["detail"]


async def test_a_flood_waits_for_the_page_that_draws_it(box_site: BoxSite) -> None:
    """The brake: with a tty and hands on it, a program is not megabytes ahead of the page."""
    box = box_site.run("sleep 600")
    session = box_site.terminal(box, "sh", "-c", "yes 0123456789012345678901234567890123456789")
    log = Path(box_site.site.home, "containers", box.uid, "exec", session.replace("-", ""), "log")
    async with signed_in(box_site.url) as person, opened(person, session) as socket:
        acked, ends = 0, time.monotonic() + 1.5
        while time.monotonic() < ends:
            await socket.take()
            offset = socket.frames[-1][0] if socket.frames else 0
            if offset - acked >= 64 * 1024:
                acked = offset
                await asyncio.sleep(0.02)
                await socket.send(t="ack", offset=offset)
                size = sum(part.stat().st_size for part in log.iterdir())
                assert size - acked < 1024 * 1024, (size, acked)
        assert acked > 512 * 1024
        assert not [m for m in socket.messages if m["t"] == "gap"]
    # Nobody looks any more: the brake is off, and the end is not hidden.
    box_site.operate(box, "stop", grace=0)


async def test_engined_killed_and_started_again_keeps_the_shell(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    session = box_site.terminal(box)
    async with signed_in(box_site.url) as person:
        async with opened(person, session) as socket:
            await socket.until_bytes(b"# ")
            await socket.type(b"V=kept; echo re''ady\r")
            await socket.until_bytes(b"ready\r\n")
            seen = socket.frames[-1][0]
            os.kill(box_site.site.pids("engined")[0], signal.SIGKILL)
            assert await socket.closed() == 1012
        for _ in range(60):
            await asyncio.sleep(0.25)
            async with person.socket(f"/ws/terminals/{session}/?seen={seen}") as socket:
                await socket.until(lambda s: s.of("hello") or s.of("end"))
                if not socket.of("hello"):
                    continue
                await socket.send(t="resize", cols=80, rows=24)
                await socket.type(b"echo $V; exit 9\r")
                await socket.until(lambda s: s.of("end"))
                assert b"kept\r\n" in socket.bytes
                assert (socket.of("end") or {})["exit_code"] == 9
                return
        raise AssertionError("engined did not come back")


async def test_a_shell_is_ended_from_the_list_even_one_that_takes_no_hang_up(
    box_site: BoxSite,
) -> None:
    box = box_site.run("sleep 600")
    stubborn = box_site.terminal(
        box, "sh", "-c", "trap '' HUP; echo ready; while true; do sleep 1; done"
    )
    unopened = box_site.terminal(box)
    async with signed_in(box_site.url) as person:
        async with opened(person, stubborn) as socket:
            await socket.until_bytes(b"ready")
            path = f"/t/team/containers/{box.name}/terminal/"
            assert await person.post(f"{path}{stubborn}/end/") == 302
            await socket.until(lambda s: s.of("end"))
            end = socket.of("end")
            assert end and (end["reason"], end["exit_code"]) == ("exited", 137)
        assert await person.post(f"{path}{unopened}/end/") == 302
    states = "result = [s.state for s in TerminalSession.objects.filter(pk__in=pks)]"
    assert box_site.call(states, pks=[stubborn, unopened]) == ["ended", "ended"]
    assert box_site.call("result = Container.objects.get(pk=pk).state", pk=box.pk) == "running"
