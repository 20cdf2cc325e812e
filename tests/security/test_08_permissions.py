"""Case 8: every page and websocket declares its permission, and what declares none is refused.

All from the URLconf and the routing: an address that is added is in these tests by itself.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import include, path

from console import urls as site_urls
from console.consumers import builds, events, logs, stats, terminals
from console.consumers.access import Visitor
from console.consumers.base import UnknownConsumer
from console.models import User
from console.permissions import Permission
from console.routing import websocket_urlpatterns
from console.views import base
from engine.models import Container, Image, Operation, Tag, Upload
from engine.services.uploads import upload_path
from tests.routes import FullSite, full_site

pytestmark = pytest.mark.django_db

PUBLIC = {"setup", "sign-in", "sign-out", "language", "session", "words", "health"}


@pytest.fixture
def full() -> FullSite:
    return full_site()


def mine_too() -> FullSite:
    """A second team whose things have names and content of their own."""
    return full_site("mine", name="mine", image="mine:latest")


def test_every_address_declares_its_permission(full: FullSite) -> None:
    routes = full.routes()
    assert len(routes) > 40
    assert [route.address for route in routes if route.permission is None] == []
    assert {route.name for route in routes if route.permission is Permission.PUBLIC} == PUBLIC


def test_who_may_do_something_may_upload_for_it_and_nobody_else(full: FullSite) -> None:
    found = {
        route.name: route.permission for route in full.routes() if route.name.startswith("uploads")
    }
    assert found == {
        f"uploads-{purpose}{step}": permission
        for purpose, permission in (
            ("builds", Permission.BUILD),
            ("files", Permission.WRITE),
            ("images", Permission.IMAGES),
        )
        for step in ("", "-piece", "-finish")
    }


def undeclared(request: HttpRequest) -> HttpResponse:
    return HttpResponse("in")


urlpatterns = [
    path("bare/", undeclared),
    path("app/", include([path("page/", undeclared)])),
    *site_urls.urlpatterns,
]


@override_settings(ROOT_URLCONF=__name__)
def test_a_view_that_declares_none_is_refused_to_everybody() -> None:
    person = Client()
    person.force_login(User.objects.create_superuser("root", password="x"))
    for client in (Client(), person):
        for address in ("/bare/", "/app/page/"):
            assert client.get(address).status_code == 403
            assert client.post(address).status_code == 403


def test_nobody_gets_in_without_signing_in(full: FullSite) -> None:
    closed = User.objects.create_user("closed", is_active=False)
    was_in = Client()
    was_in.force_login(closed)
    for client in (Client(), was_in):
        for route in full.routes():
            if route.permission is Permission.PUBLIC:
                continue
            for method in (client.get, client.post, client.put, client.delete):
                response = method(route.address)
                assert response.status_code == 302, route
                assert response["Location"].startswith("/sign-in/"), route


def test_every_page_of_a_team_asks_for_its_permission_there(
    full: FullSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the team's namespace, before it looks anything up; a no is a no for every method."""
    asked: list[tuple[Permission, int | None]] = []

    def no(user: User, permission: Permission, namespace_id: int | None = None) -> bool:
        asked.append((permission, namespace_id))
        return False

    monkeypatch.setattr(base, "may", no)
    teams = [route for route in full.routes() if route.of_team]
    assert len(teams) > 35
    for route in teams:
        for method in ("GET", "POST", "PUT"):
            asked.clear()
            response = full.site.client.generic(method, route.address)
            assert response.status_code in (403, 405), route
            if response.status_code == 403:
                assert asked == [(route.permission, full.site.namespace.pk)], route
    assert Operation.objects.count() == 1


def test_another_teams_things_are_not_found_under_this_team(full: FullSite) -> None:
    """Every address that names a thing, with another team's thing."""
    mine = mine_too()
    before = _counts()
    for route in full.routes(team=mine.site.team.slug, number="77"):
        if not route.names:
            continue
        for method in ("GET", "POST", "PUT"):
            response = mine.site.client.generic(method, route.address)
            # A pull that is another team's is answered like one that is over.
            wanted = {302} if route.name == "pull-cancel" else {404}
            assert response.status_code in wanted | {405}, (method, route)
    assert _counts() == before
    full.pull.refresh_from_db()
    assert full.pull.state == "queued"


def _counts() -> list[int]:
    return [Operation.objects.count(), Tag.objects.count(), Container.objects.count()]


def test_keys_of_another_teams_rows_do_nothing_here(full: FullSite) -> None:
    """The forms and queries that name rows by key."""
    mine = mine_too()
    client, team = mine.site.client, mine.site.base
    before = _counts()
    theirs = full.container.pk
    for action in ("start", "stop"):
        client.post(f"{team}containers/bulk/", {"action": action, "id": theirs})
    client.post(f"{team}containers/remove/", {"id": theirs})
    tag = full.image.tags.get()
    mine.image.tags.create(namespace=mine.site.namespace, repository="x", tag="y")
    client.post(f"{team}images/i/{mine.image.short_id}/untag/", {"tag": tag.pk})
    for kind, key in (
        ("containers", theirs),
        ("builds", full.build.pk),
        ("images", full.image.pk),
    ):
        assert "data-row=" not in client.get(f"{team}{kind}/rows/?ids={key}").content.decode()
    assert full.container.name not in client.get(f"{team}containers/remove/?id={theirs}").url
    Upload.objects.filter(pk=full.upload.pk).update(complete=True, received=1)
    response = client.post(f"{team}builds/new/", {"upload": full.upload.pk, "tag": "x"})
    assert response.status_code == 422
    response = client.post(f"{team}containers/new/", {"image": full.image.digest, "mode": "x"})
    assert response.status_code == 422
    assert [a - b for a, b in zip(_counts(), before, strict=True)] == [0, 1, 0]
    assert not upload_path(full.upload).exists()
    assert Image.objects.filter(pk=full.image.pk).exists()


# ---------------------------------------------------------------- websockets

CONSUMERS = {
    "ws/events": Permission.SIGNED_IN,
    "ws/logs": Permission.LOGS,
    "ws/stats": Permission.INSPECT,
    "ws/builds": Permission.SEE,
    "ws/terminals": Permission.EXEC,
}


def test_every_websocket_declares_its_permission_and_the_rest_is_refused() -> None:
    *ours, last = websocket_urlpatterns
    found = {}
    for pattern in ours:
        consumer = pattern.callback.consumer_class
        address = str(pattern.pattern).removeprefix("^")
        # Its own, not one it came by through inheritance.
        found["/".join(address.split("/")[:2])] = vars(consumer)["permission"]
    assert found == CONSUMERS
    assert str(last.pattern) == ""
    assert last.callback.consumer_class is UnknownConsumer
    assert UnknownConsumer().allowed(Visitor(User(is_active=True), "x")) is False


@pytest.mark.parametrize("module", [builds, events, logs, stats, terminals])
def test_every_websocket_asks_for_its_permission_in_the_things_namespace(
    full: FullSite, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Permission, int | None]] = []

    def no(user: User, permission: Permission, namespace_id: int | None = None) -> bool:
        asked.append((permission, namespace_id))
        return False

    monkeypatch.setattr(module, "may", no)
    consumer_class, values = {
        builds: (builds.BuildsConsumer, {"pk": str(full.build.pk)}),
        events: (events.EventsConsumer, {}),
        logs: (logs.LogsConsumer, {"uid": full.container.uid}),
        stats: (stats.StatsConsumer, {"uid": full.container.uid}),
        terminals: (terminals.TerminalsConsumer, {"session": str(full.session.pk)}),
    }[module]
    consumer = consumer_class()
    consumer.scope = {"url_route": {"kwargs": values}}
    assert consumer.allowed(Visitor(full.site.user, "x")) is False
    here = full.site.namespace.pk
    wanted = (consumer_class.permission, here)
    if module is events:
        # One socket for all teams: which of them it hears of is asked one by one.
        assert asked == [(Permission.SEE, here), (Permission.SIGNED_IN, None)]
    else:
        assert asked == [wanted]
