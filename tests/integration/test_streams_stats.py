"""What a container uses, through all processes: engined's one reader, web, sockets."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from tests.box_site import BoxSite
from tests.sockets import Socket, signed_in

BUSY = "sleep 600 & while :; do :; done"


def samples(socket: Socket) -> list[dict[str, Any]]:
    return [one for m in socket.messages if m["t"] == "usage" for one in m["samples"]]


async def test_a_busy_loop_is_seen_by_two_and_read_by_one(box_site: BoxSite) -> None:
    limits = "HostOptions(limits=Limits(memory=64 << 20, nano_cpus=5 * 10**8, pids=50))"
    box = await asyncio.to_thread(run_limited, box_site, limits)
    async with (
        signed_in(box_site.url) as person,
        person.socket(f"/ws/stats/{box}/") as one,
        person.socket(f"/ws/stats/{box}/") as other,
    ):
        await one.until(lambda s: len(samples(s)) >= 4)
        await other.until(lambda s: len(samples(s)) >= 4)
        hello, last = one.of("hello"), samples(one)[-1]
        assert hello and hello["running"] and hello["v"] == 1
        assert samples(one)[0]["cpu"] is None
        assert 30 < last["cpu"] < 70, last
        assert last["limit"] == 64 << 20 and last["limited"] and 0 < last["memory"] < 64 << 20
        assert last["pids"] == 2 and last["pids_limit"] == 50
        found = one.of("processes")
        assert found and found["titles"][-1] == "CMD" and found["more"] == 0
        assert sorted(row[-1].split()[0] for row in found["rows"]) == ["sh", "sleep"]
        # The same readings: one reader for both.
        mine, theirs = ({s["at"] for s in samples(x)} for x in (one, other))
        assert len(mine & theirs) >= min(len(mine), len(theirs)) - 1
        times = sorted(mine)
        assert all(800 < b - a < 1800 for a, b in pairwise(times)), times
        # What is not looked at is not read; what was read before is there for the next.
        for socket in (one, other):
            await socket.send(t="look", on=False)
        await asyncio.sleep(1.2)
        had = len(samples(one))
        await one.send(t="look", on=True)
        await one.until(lambda s: len(samples(s)) > had)
        gaps = [b["at"] - a["at"] for a, b in pairwise(samples(one))]
        assert max(gaps) > 1100


def run_limited(box_site: BoxSite, host: str) -> str:
    uid: str = box_site.call(
        f"""
        from engine.containers.options import HostOptions, Limits
        made, operation = container_run(namespace, ContainerRequest(
            image="box", command=("sh", "-c", script), host={host}), "user:1")
        done(operation)
        result = made.uid
        """,
        script=BUSY,
    )
    return uid


async def test_it_waits_for_a_stopped_one_and_ends_with_its_container(box_site: BoxSite) -> None:
    box = await asyncio.to_thread(box_site.command, "sleep", "600", start=False)
    async with signed_in(box_site.url) as person, person.socket(f"/ws/stats/{box.uid}/") as socket:
        await socket.until(lambda s: s.of("hello"))
        assert (socket.of("hello") or {})["running"] is False
        await asyncio.to_thread(box_site.operate, box, "start")
        await socket.until(lambda s: len(samples(s)) >= 2)
        assert (socket.of("state") or {})["running"] is True
        await asyncio.to_thread(box_site.operate, box, "kill")
        await socket.until(lambda s: (s.of("state") or {})["running"] is False)
        assert (socket.of("state") or {})["exit_code"] == 137
        await asyncio.to_thread(box_site.operate, box, "remove")
        assert await socket.closed() == 4404
        assert (socket.of("end") or {})["reason"] == "gone"
