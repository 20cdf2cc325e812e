"""engined records an exit within 100 ms of it, also while two hundred logs stream.

Measured from the time stamp of conmon's exit file to the moment the row has changed, seen by a
reader of the site's own database.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from engine.containers.attempts import Attempt
from tests.box_site import BoxSite
from tests.site import PASSWORD, running_site
from tests.sockets import Person, Socket

WRITERS = 10
FOLLOWERS = 200
LINES_A_SECOND = 50
ENDS = 20
BOUND = 0.100
ROUNDS = 3
# One person may have 50 sockets of a kind in a process; the kernel shares them out unevenly.
PEOPLE = 10


# A process of its own: in this one two hundred sockets would be in its way. Ends with its stdin.
_WATCH = """
import sqlite3, sys, threading, time
over, seen = threading.Event(), set()
threading.Thread(target=lambda: (sys.stdin.read(), over.set())).start()
rows = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
while not over.wait(0.001):
    for (uid,) in rows.execute("SELECT uid FROM engine_container WHERE state = 'exited'"):
        if uid not in seen:
            seen.add(uid)
            print(uid, time.time(), flush=True)
"""


@contextlib.contextmanager
def watched_rows(database: Path) -> Iterator[dict[str, float]]:
    """When each container's row was first seen to say exited."""
    seen: dict[str, float] = {}

    def read(lines: Iterable[str]) -> None:
        for line in lines:
            uid, when = line.split()
            seen[uid] = float(when)

    with subprocess.Popen(
        [sys.executable, "-c", _WATCH, database],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdin is not None and watch.stdout is not None
        reading = threading.Thread(target=read, args=(watch.stdout,))
        reading.start()
        yield seen
        watch.stdin.close()
        reading.join()


@pytest.fixture(scope="module")
def box_site() -> Iterator[BoxSite]:
    with running_site() as site:
        made = BoxSite(site)
        made.call(
            "for n in range(people): User.objects.create_superuser(f'p{n}', password=password)",
            people=PEOPLE,
            password=PASSWORD,
        )
        try:
            yield made
        finally:
            made.close()


async def follow(socket: Socket, counts: list[int], at: int) -> None:
    """As a page: takes, counts lines, acknowledges each 64 KiB."""
    unacked = 0
    while await socket.take():
        for offset, data in socket.frames:
            counts[at] += data.count(b"\n")
            unacked += len(data)
            if unacked > 64 * 1024:
                unacked = 0
                await socket.send(t="ack", offset=offset + len(data))
        socket.frames.clear()


async def test_while_two_hundred_logs_stream(box_site: BoxSite) -> None:
    pause = 1 / LINES_A_SECOND
    line = "0123456789" * 6
    script = f"while true; do echo {line}; usleep {int(pause * 1e6)}; done"
    writers = [box_site.run(script) for _ in range(WRITERS)]
    counts = [0] * FOLLOWERS
    async with contextlib.AsyncExitStack() as stack:
        database = box_site.site.home / "db" / "quayside.sqlite3"
        seen = stack.enter_context(watched_rows(database))
        people = [await stack.enter_async_context(Person(box_site.url)) for _ in range(PEOPLE)]
        await asyncio.gather(*(one.sign_in(f"p{n}") for n, one in enumerate(people)))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        following = []
        for n in range(FOLLOWERS):
            path = f"/ws/logs/{writers[n % WRITERS].uid}/?from=-1"
            socket = await stack.enter_async_context(people[n % PEOPLE].socket(path))
            following.append(tasks.create_task(follow(socket, counts, n)))
        while min(counts) < 20:
            await asyncio.sleep(0.1)

        rounds: list[list[float]] = []
        for _ in range(ROUNDS):
            began, before = time.monotonic(), sum(counts)
            rounds.append(await asyncio.to_thread(end_some, box_site, seen))
            streamed = (sum(counts) - before) / (time.monotonic() - began)
            # It was a real load: what the writers write came to the followers.
            assert streamed > 0.5 * FOLLOWERS * LINES_A_SECOND
        for task in following:
            task.cancel()
    every = [late for one in rounds for late in one]
    assert max(every) < BOUND, [[round(1000 * late) for late in one] for one in rounds]
    assert statistics.median(every) < BOUND / 2


def end_some(box_site: BoxSite, seen: dict[str, float]) -> list[float]:
    """Containers that end by themselves, one after the other: how long after, in order."""
    uids = []
    for _ in range(ENDS):
        # Long enough for its start to be on record before its end.
        made = box_site.run("sleep 1; exit 7")
        uids.append(made.uid)
    deadline = time.monotonic() + 30
    while not seen.keys() >= set(uids):
        assert time.monotonic() < deadline, "an exit was not recorded"
        time.sleep(0.05)
    codes = "c = Container.objects.filter(uid__in=uids).values_list('exit_code', flat=True)\n"
    assert box_site.call(f"{codes}result = list(c)", uids=uids) == [7] * ENDS
    exits = box_site.site.home / "exits"
    ended = {uid: Attempt(exits / f"{uid}.1", uid).exit() for uid in uids}
    return sorted(
        seen[uid] - one.finished_at.timestamp() for uid, one in ended.items() if one is not None
    )
