"""A build's log through all processes: from the first byte to the last, live, after any cut."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.box_site import BoxSite
from tests.integration.test_streams_logs import whole
from tests.sockets import signed_in


def begin(site: BoxSite) -> tuple[int, Path]:
    """A running build as a worker has it, and its log; the test plays the worker."""
    pk: int = site.call(
        """
        from engine.services.namespaces import node_local
        last = Build.objects.order_by("-number").first()
        made = Build.objects.create(
            namespace=namespace, node=node_local(), state="running",
            number=last.number + 1 if last else 1,
        )
        result = made.pk
        """
    )
    return pk, site.site.home / "builds" / str(pk) / "log.jsonl"


def finish(site: BoxSite, pk: int, state: str) -> None:
    site.call("Build.objects.filter(pk=pk).update(state=state)", pk=pk, state=state)


def event(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


async def test_from_before_the_log_exists_to_its_last_line(box_site: BoxSite) -> None:
    pk, log = begin(box_site)
    async with signed_in(box_site.url) as person, person.socket(f"/ws/builds/{pk}/") as socket:
        await socket.until(lambda s: s.of("hello"))
        log.parent.mkdir()
        written = event(t="plan", steps=[])
        log.write_bytes(written)
        await socket.until(lambda s: s.bytes == written)
        with log.open("ab", buffering=0) as file:
            for n in range(2000):
                line = event(t="out", n=1, s=1, d=f"line {n} 한글\n")
                file.write(line[:10])
                file.write(line[10:])
                written += line
            await socket.until(lambda s: s.bytes == written)
            written += event(t="done", image="sha256:0", size=1, ms=5)
            file.write(written[-len(event(t="done", image="sha256:0", size=1, ms=5)) :])
        finish(box_site, pk, "done")
        assert await socket.closed() == 1000
        assert whole(socket.frames) == written
        assert (socket.of("end") or {})["reason"] == "done"
        middle = len(written) // 2
    async with (
        signed_in(box_site.url) as person,
        person.socket(f"/ws/builds/{pk}/?from={middle}") as socket,
    ):
        assert await socket.closed() == 1000
        assert socket.frames[0][0] == middle
        assert whole(socket.frames) == written[middle:]


async def test_a_build_that_ends_without_a_last_line_ends_its_stream(box_site: BoxSite) -> None:
    pk, log = begin(box_site)
    log.parent.mkdir()
    log.write_bytes(event(t="plan", steps=[]) + b'{"t":"out","n":1')
    async with signed_in(box_site.url) as person, person.socket(f"/ws/builds/{pk}/") as socket:
        await socket.until(lambda s: s.bytes)
        await asyncio.sleep(0.1)
        finish(box_site, pk, "failed")
        assert await socket.closed(6) == 1000
        assert (socket.of("end") or {})["reason"] == "failed"
