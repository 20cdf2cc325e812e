"""Case 18: a page of another site cannot make a signed-in person's browser do anything here.

Every address of the URLconf is sent what a foreign page can send without asking first: simple
requests, the cookies with them. None of them may change a row, a cookie or a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.sessions.models import Session
from django.test import Client

from console.models import User
from console.setup_code import code_make
from engine.services.uploads import upload_path
from tests.routes import FullSite, Route, full_site
from tests.unit.console_rows import PASSWORD

pytestmark = pytest.mark.django_db

# What each form would want, so that only the missing token stands in its way.
FIELDS: dict[str, dict[str, Any]] = {
    "setup": {"username": "eve", "password": PASSWORD, "team": "Eve"},
    "sign-in": {"username": "eve", "password": PASSWORD},
    "language": {"language": "ko"},
    "container-bulk": {"action": "stop"},
    "container-new": {"image": "shop", "mode": "detached", "host_ip": "0.0.0.0"},
    "container-settings": {"name": "renamed"},
    "terminal-new": {"kind": "exec"},
    "build-new": {"dockerfile": "FROM scratch\n", "tag": "x"},
    "build-again": {"dockerfile": "FROM scratch\n"},
    "image-pull": {"name": "busybox"},
    "image-tag": {"name": "other:1"},
    "uploads": {"filename": "a.tar", "size": "10"},
}
# The media types a form or `fetch` in mode no-cors may send.
SIMPLE = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")


@pytest.fixture
def full() -> FullSite:
    return full_site()


@pytest.fixture
def browser(full: FullSite) -> Client:
    """Signed in, and with the token's cookie: the other site cannot read it."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(full.site.user)
    client.get(f"{full.site.base}containers/new/")
    assert settings.CSRF_COOKIE_NAME in client.cookies
    return client


def state() -> dict[str, Any]:
    """Every row there is, and the uploads' folder."""
    rows: dict[str, Any] = {
        model._meta.label: sorted(str(row) for row in model._default_manager.values())
        for model in apps.get_models()
    }
    folder = settings.ENGINE.home / "uploads"
    rows["uploads"] = sorted(path.name for path in folder.iterdir())
    return rows


def values_of(browser: Client) -> dict[str, str]:
    return {name: cookie.value for name, cookie in browser.cookies.items()}


def changing(full: FullSite) -> Iterator[tuple[Route, dict[str, Any]]]:
    for route in full.routes():
        fields = {"id": full.container.pk, "tag": full.image.tags.get().pk}
        yield route, {**fields, **FIELDS.get(route.name, {})}


def body_of(kind: str, fields: dict[str, Any]) -> tuple[str, bytes]:
    """(Content-Type, body) as a browser makes them."""
    if kind == "multipart/form-data":
        parts = "".join(
            f'--x\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in fields.items()
        )
        return f"{kind}; boundary=x", f"{parts}--x--\r\n".encode()
    if kind == "text/plain":
        return kind, json.dumps(fields).encode()
    return kind, "&".join(f"{key}={value}" for key, value in fields.items()).encode()


@pytest.mark.parametrize("kind", SIMPLE)
@pytest.mark.parametrize("origin", ["https://evil.example", "null", ""])
def test_simple_posts_change_nothing(
    full: FullSite, browser: Client, kind: str, origin: str
) -> None:
    before, cookies = state(), values_of(browser)
    headers = {"Origin": origin} if origin else {}
    refused = 0
    for route, fields in changing(full):
        content_type, body = body_of(kind, fields)
        response = browser.post(route.address, body, content_type=content_type, headers=headers)
        # Pages that take no POST say so, or are not asked because the token is first.
        assert response.status_code in (403, 405), route
        refused += response.status_code == 403
    assert refused > 30
    assert state() == before
    assert values_of(browser) == cookies
    assert Session.objects.count() == 2


def test_a_token_of_the_attackers_own_does_not_help(full: FullSite, browser: Client) -> None:
    """A token fits its own cookie only; the attacker's page has one from their own visit."""
    theirs = Client(enforce_csrf_checks=True)
    theirs.get("/sign-in/")
    token = theirs.cookies[settings.CSRF_COOKIE_NAME].value
    before = state()
    for route, fields in changing(full):
        body = {**fields, "csrfmiddlewaretoken": token}
        for headers in ({}, {"X-CSRFToken": token}, {"HX-Request": "true"}):
            response = browser.post(route.address, body, headers=headers)
            assert response.status_code in (403, 405), route
    assert state() == before


def test_other_methods_that_change_want_the_token_too(full: FullSite, browser: Client) -> None:
    before = state()
    for route in full.routes():
        for method in ("PUT", "PATCH", "DELETE"):
            response = browser.generic(method, route.address, b"x", headers={"Upload-Offset": "0"})
            assert response.status_code in (403, 405), (method, route)
    assert state() == before
    assert not upload_path(full.upload).exists()


def test_looking_changes_nothing(full: FullSite, browser: Client) -> None:
    """A GET needs no token: an image tag on any page can send one, so it must do nothing."""
    before = state()
    for route, fields in changing(full):
        for method in ("GET", "HEAD", "OPTIONS"):
            if route.name == "log-download":
                continue  # its answer streams; asking for it issues nothing before it is read
            browser.generic(
                method,
                route.address,
                QUERY_STRING="&".join(f"{key}={value}" for key, value in fields.items()),
            )
    after = state()
    # A ticket is web's own, for the one look at a container's files that it is answering.
    changed = {kind for kind in before if before[kind] != after[kind]}
    assert changed <= {"engine.StreamTicket"}


def test_signing_in_and_setting_up_want_it_too() -> None:
    """Else a person could be made to work under the attacker's name."""
    eve = Client(enforce_csrf_checks=True)
    code = code_make()
    response = eve.post("/setup/", {"code": code, **FIELDS["setup"]})
    assert response.status_code == 403
    assert not User.objects.exists()
    User.objects.create_user("eve", password=PASSWORD)
    assert eve.post("/sign-in/", FIELDS["sign-in"]).status_code == 403
    assert not Session.objects.exists()


def test_the_cookies_stay_at_home(browser: Client, full: FullSite) -> None:
    """Lax: not sent with another site's form at all; and no script reads the session's."""
    session = browser.cookies[settings.SESSION_COOKIE_NAME]
    assert settings.SESSION_COOKIE_SAMESITE == settings.CSRF_COOKIE_SAMESITE == "Lax"
    assert settings.SESSION_COOKIE_HTTPONLY
    token = browser.cookies[settings.CSRF_COOKIE_NAME]
    assert token["samesite"] == "Lax"
    assert not session["domain"]
    assert not token["domain"]


def test_with_the_token_it_works(full: FullSite, browser: Client) -> None:
    """So that what is refused above is refused for the token, and for nothing else."""
    token = browser.cookies[settings.CSRF_COOKIE_NAME].value
    address = f"{full.site.base}containers/web/settings/"
    assert browser.post(address, {"name": "renamed"}).status_code == 403
    response = browser.post(address, {"name": "renamed", "csrfmiddlewaretoken": token})
    assert response.status_code == 302
    full.container.refresh_from_db()
    assert full.container.name == "renamed"
