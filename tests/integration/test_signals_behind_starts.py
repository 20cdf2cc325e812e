"""Signals that come while a container's start is on its way: by the API and by the pages' service.

A start is held in its middle by the lock of the container's folder, which it has to have, or by
one on the database, which it needs to write that it runs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.box_site import Box, BoxSite
from tests.engine_api import Answer, EngineApi
from tests.sockets import signed_in
from tests.town import eventually

# Says that it hears before it may be asked to.
_HEARS = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"


@contextmanager
def held(site: BoxSite, box: Box) -> Iterator[None]:
    """The lock of its folder: who starts it waits."""
    with open(site.site.home / "containers" / box.uid / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ask(site: BoxSite, verb: str, box: Box, **more: Any) -> int:
    """As a page does; the operation's key."""
    key: int = site.call(
        f"result = container_{verb}(Container.objects.get(pk=pk), 'user:1', **more).pk",
        pk=box.pk,
        more=more,
    )
    return key


def at_work(site: BoxSite, box: Box, *kinds: str) -> Callable[[], bool]:
    """Whether a worker has begun each of these operations, and ended none of them."""
    wanted = sorted(f"container.{kind}" for kind in kinds)
    return lambda: (
        site.call(
            "result = sorted(Operation.objects.filter(target=pk, state='running')"
            ".values_list('kind', flat=True))",
            pk=str(box.pk),
        )
        == wanted
    )


def end_of(site: BoxSite, box: Box) -> Callable[[], object]:
    return lambda: site.call(
        "row = Container.objects.get(pk=pk)\n"
        "result = [row.exit_code, row.generation] if row.state == 'exited' else None",
        pk=box.pk,
    )


async def test_each_waits_for_the_start_and_then_ends_it(box_site: BoxSite) -> None:
    api = EngineApi.of(box_site)
    by_api = [box_site.command("sleep", "600", start=False) for _ in range(3)]
    by_page = [box_site.command("sleep", "600", start=False) for _ in range(2)]
    pauses = box_site.command("sleep", "600", start=False)
    executes = box_site.command("sleep", "600", start=False)
    verbs = ["kill", "stop", "pause", "kill", "stop", "pause"]
    boxes = [*by_api, *by_page, pauses]
    async with signed_in(box_site.url) as person:
        with ExitStack() as holding:
            for box in (*boxes, executes):
                holding.enter_context(held(box_site, box))
                ask(box_site, "start", box)
            for box in (*boxes, executes):
                await eventually(at_work(box_site, box, "start"))
            execution = asyncio.create_task(asyncio.to_thread(api.exec, executes.uid, "true"))
            paths = ("kill", "stop?t=0", "pause")
            asked = [
                asyncio.create_task(asyncio.to_thread(api.post, f"/containers/{box.uid}/{path}"))
                for box, path in zip(by_api, paths, strict=True)
            ]
            # A page is answered at once; what it asked for waits in the worker.
            assert await person.post(f"/t/team/containers/{by_page[0].name}/kill/") == 302
            ask(box_site, "stop", by_page[1], grace=0)
            ask(box_site, "pause", pauses)
            for box, verb in zip(boxes, verbs, strict=True):
                await eventually(at_work(box_site, box, "start", verb))
            assert not any(task.done() for task in (*asked, execution))
    assert await execution
    assert [answer.status for answer in await asyncio.gather(*asked)] == [204, 204, 204]
    for box, verb in zip(boxes, verbs, strict=True):
        if verb != "pause":
            assert await eventually(end_of(box_site, box)) == [137, 1]
    for box in (by_api[2], pauses):
        assert await eventually(
            lambda box=box: api.get(f"/containers/{box.uid}/json").json["State"]["Paused"]
        )


async def test_who_heard_it_is_heard(box_site: BoxSite) -> None:
    """The program has spoken and its row does not say yet that it runs: its trap gets SIGTERM."""
    api = EngineApi.of(box_site)

    def by_api(box: Box) -> Awaitable[Answer]:
        path = f"/containers/{box.uid}/kill?signal=TERM"
        return asyncio.create_task(asyncio.to_thread(api.post, path))

    def by_page(box: Box) -> None:
        ask(box_site, "stop", box)

    for verb, send in (("kill", by_api), ("stop", by_page)):
        box, answer = await spoken(box_site, verb, send)
        assert answer is None or (await answer).status == 204
        assert await eventually(end_of(box_site, box)) == [5, 1]


async def spoken(
    site: BoxSite, verb: str, send: Callable[[Box], Awaitable[Answer] | None]
) -> tuple[Box, Awaitable[Answer] | None]:
    """One that was sent `verb` before it ran, and spoke before its row could say that it runs; and
    what `send` gave."""
    with contextlib.closing(
        sqlite3.connect(site.site.home / "db" / "quayside.sqlite3", isolation_level=None)
    ) as database:
        for _ in range(5):
            box = site.command("sh", "-c", _HEARS, start=False)
            with held(site, box):
                ask(site, "start", box)
                await eventually(at_work(site, box, "start"))
                answer = send(box)
                await eventually(at_work(site, box, "start", verb))
            await eventually((site.site.home / "exits" / f"{box.uid}.1").exists, every=0.001)
            database.execute("BEGIN IMMEDIATE")
            row = "SELECT started_at IS NULL FROM engine_container WHERE uid = ?"
            (in_time,) = database.execute(row, [box.uid]).fetchone()
            if in_time:
                log = site.site.home / "containers" / box.uid / "log"
                await eventually(
                    lambda log=log: any(b"ready" in part.read_bytes() for part in log.glob("*"))
                )
            database.execute("ROLLBACK")
            if in_time:
                return box, answer
            # This machine was busy elsewhere: it may have been asked before it could hear.
            site.operate(box, "remove", force=True)
            if answer is not None:
                await answer
    raise AssertionError("each start was faster than we are")
