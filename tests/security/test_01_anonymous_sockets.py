"""Case 1: a websocket refuses an anonymous visitor before it accepts; ids are validated."""

from __future__ import annotations

import aiohttp
import pytest

from engine.config import EngineConfig
from tests.box_site import BoxSite
from tests.sockets import Person, signed_in

UUID = "00000000-0000-4000-8000-000000000000"


async def refused(person: Person, path: str, **headers: str) -> int:
    """The HTTP status an upgrade is answered with; fails when it is accepted."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        async with person.socket(path, **headers):
            pass
    return error.value.status


async def test_nobody_is_refused_everywhere(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    session = box_site.terminal(box)
    paths = [
        "/ws/events/",
        f"/ws/logs/{box.uid}/?from=0",
        f"/ws/terminals/{session}/",
        "/ws/builds/1/",
        "/ws/nothing/",
    ]
    async with Person(box_site.url) as nobody:
        for path in paths:
            assert await refused(nobody, path) == 403
        # A made-up session is none.
        name = f"quayside_session_{EngineConfig(home=box_site.site.home).instance}"
        nobody.http.cookie_jar.update_cookies({name: "x" * 32})
        for path in paths:
            assert await refused(nobody, path) == 403
    async with signed_in(box_site.url) as person:
        cookies = [(cookie.key, cookie.value) for cookie in person.http.cookie_jar]
        assert name in dict(cookies)
        assert await person.post("/sign-out/") == 302
        for key, value in cookies:
            person.http.cookie_jar.update_cookies({key: value})
        for path in paths:
            assert await refused(person, path) == 403


async def test_ids_that_are_none_are_refused(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    async with signed_in(box_site.url) as person:
        for path in (
            f"/ws/logs/{'0' * 64}/",
            f"/ws/logs/{box.uid[:12]}/",
            f"/ws/logs/{box.uid.upper()}/",
            f"/ws/logs/..%2f{box.uid}/",
            "/ws/builds/999999999999999999/",
            "/ws/builds/1%27%20or%201/",
            f"/ws/terminals/{UUID}/",
            "/ws/terminals/../terminals/",
        ):
            assert await refused(person, path) == 403, path
        async with person.socket(f"/ws/logs/{box.uid}/?from=1e9") as socket:
            assert await socket.closed() == 4400


async def test_another_persons_terminal_is_not_shown(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    box_site.call("User.objects.create_user('guest', password='guest-and-anchor-7')")
    session = box_site.terminal(box)
    async with Person(box_site.url) as guest:
        await guest.sign_in("guest", "guest-and-anchor-7")
        assert await refused(guest, f"/ws/terminals/{session}/") == 403
    box_site.call("User.objects.filter(username='guest').delete()")
