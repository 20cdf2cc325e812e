"""Open sockets: events by the channel layer, and their end when a person's access ends."""

from __future__ import annotations

import asyncio
import os
import signal

from tests.box_site import BoxSite
from tests.sockets import Person, signed_in


async def test_events_tell_which_rows_changed(box_site: BoxSite) -> None:
    async with signed_in(box_site.url) as person, person.socket("/ws/events/") as socket:
        await socket.until(lambda s: s.of("hello"))
        box = await asyncio.to_thread(box_site.run, "sleep 600")
        await socket.until(
            lambda s: {"container", "operation"} <= {m.get("kind") for m in s.messages}
        )
        change = next(m for m in socket.messages if m.get("kind") == "container")
        assert change["t"] == "changed" and str(change["id"]) == str(box.pk)
        assert set(change) == {"t", "kind", "id", "rev"}


async def test_a_killed_redis_closes_no_stream(box_site: BoxSite) -> None:
    box = box_site.run("i=0; while true; do echo line $i; i=$((i+1)); sleep 0.1; done")
    async with (
        signed_in(box_site.url) as person,
        person.socket("/ws/events/") as events,
        person.socket(f"/ws/logs/{box.uid}/?from=0") as logs,
    ):
        await events.until(lambda s: s.of("hello"))
        await logs.until(lambda s: len(s.frames) > 2)
        os.kill(box_site.site.pids("redis")[0], signal.SIGKILL)
        await logs.until(lambda s: len(s.frames) > 12)
        assert not logs.of("end")
        told = asyncio.create_task(events.until(lambda s: s.of("changed")))
        while not told.done():
            box_site.call(
                "from engine import publish\npublish.changed(namespace.pk, 'container', pk)",
                pk=box.pk,
            )
            await asyncio.sleep(0.25)
        await told


async def test_sign_out_closes_all_sockets_of_that_session_alone(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    session = box_site.terminal(box)
    async with (
        signed_in(box_site.url) as person,
        signed_in(box_site.url) as other,
        person.socket("/ws/events/") as events,
        person.socket(f"/ws/logs/{box.uid}/") as logs,
        person.socket(f"/ws/terminals/{session}/") as terminal,
        other.socket(f"/ws/logs/{box.uid}/") as others,
    ):
        for socket in (events, logs, terminal, others):
            await socket.until(lambda s: s.of("hello"))
        assert await person.post("/sign-out/") == 302
        for socket in (events, logs, terminal):
            assert await socket.closed(2) == 4401
            assert (socket.of("end") or {})["reason"] == "signed-out"
        await others.send(t="ping")
        await others.until(lambda s: s.of("pong"))


async def test_a_change_of_access_closes_sockets(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    async with signed_in(box_site.url) as person:
        async with person.socket(f"/ws/logs/{box.uid}/") as socket:
            await socket.until(lambda s: s.of("hello"))
            box_site.call("User.objects.update(access_epoch=user.access_epoch + 1)")
            assert await socket.closed(2) == 4403
        # It still may: the page comes back by itself.
        async with person.socket(f"/ws/logs/{box.uid}/") as socket:
            await socket.until(lambda s: s.of("hello"))


async def test_a_deactivated_person_is_out(box_site: BoxSite) -> None:
    box_site.call("User.objects.create_user('guest', password='guest-and-anchor-7')")
    box = box_site.run("sleep 600")
    async with Person(box_site.url) as person:
        await person.sign_in("guest", "guest-and-anchor-7")
        async with person.socket(f"/ws/logs/{box.uid}/") as socket:
            await socket.until(lambda s: s.of("hello"))
            box_site.call("User.objects.filter(username='guest').update(is_active=False)")
            assert await socket.closed(2) == 4403
    box_site.call("User.objects.filter(username='guest').delete()")
