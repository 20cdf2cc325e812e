"""Case 16: nothing anybody named, wrote or printed becomes a script in the console.

Every address answers with the policy; every page is rendered over rows full of markup; and the
modules put what they are sent into the page as text.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.http import HttpRequest
from django.test import Client
from django.urls import path
from playwright.sync_api import sync_playwright

from console import urls as site_urls
from console.permissions import Permission, requires
from tests.box_site import BoxSite
from tests.e2e.conftest import ARGUMENTS, CHROMIUM
from tests.routes import FullSite, full_site
from tests.site import PASSWORD, USERNAME

pytestmark = pytest.mark.django_db

STATIC = Path(__file__).resolve().parents[2] / "static" / "js"
MARK = "hostile7"
HOSTILE = (
    f"\"'><script>{MARK}()</script><img src=x onerror={MARK}()></textarea><svg/onload={MARK}()>"
    f"{{{{{MARK}}}}}{{% debug %}}\u2028</title><a href=javascript:{MARK}()>\u202e"
)
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}
# xterm.js makes style elements: the one page it is on, and that one directive.
TERMINAL = "terminal-session"


@pytest.fixture
def full() -> FullSite:
    made = full_site(text=HOSTILE)
    made.site.team.name = HOSTILE
    made.site.team.save()
    made.site.user.username = HOSTILE
    made.site.user.save()
    return made


def policy_of(response: Any) -> dict[str, str]:
    found = {}
    for directive in response.headers["Content-Security-Policy"].split(";"):
        name, _, values = directive.strip().partition(" ")
        found[name] = " ".join(v for v in values.split() if not v.startswith("'nonce-"))
    return found


def test_every_answer_carries_the_policy(full: FullSite) -> None:
    for route in full.routes():
        for client in (full.site.client, Client()):
            for method in ("GET", "POST", "PUT"):
                response = client.generic(method, route.address)
                wanted = dict(POLICY)
                if route.name == TERMINAL and client is full.site.client:
                    wanted["style-src"] += " 'unsafe-inline'"
                if not (route.name == TERMINAL and method != "GET"):
                    assert policy_of(response) == wanted, (method, route.address)
                assert response.headers["X-Content-Type-Options"] == "nosniff", route
                assert response.headers["X-Frame-Options"] == "DENY", route
        full.site.client.force_login(full.site.user)  # one of them is the way out


@requires(Permission.PUBLIC)
def broken(request: HttpRequest) -> None:
    raise RuntimeError(HOSTILE)


urlpatterns = [path("broken/", broken), *site_urls.urlpatterns]


@pytest.mark.urls(__name__)
def test_so_do_errors(full: FullSite) -> None:
    client = Client(raise_request_exception=False, enforce_csrf_checks=True)
    client.force_login(full.site.user)
    for method, address, status in (
        ("GET", f"/{HOSTILE.replace('?', '')}/", 404),
        ("GET", f"{full.site.base}containers/{MARK}%22%3E%3Cscript%3E{MARK}()/logs/", 404),
        ("POST", f"{full.site.base}containers/bulk/", 403),
        ("GET", "/broken/", 500),
    ):
        response = client.generic(method, address)
        assert response.status_code == status, address
        assert policy_of(response) == POLICY, address
        assert_harmless(response.content.decode(), address)


ADDRESSES = ("href", "src", "action", "formaction", "hx-get", "hx-post", "xlink:href")
# A path, a query, a part of this page, or a web page: no other scheme.
OWN_ADDRESS = re.compile(r"(?![a-z0-9+.-]*:)|https?://")


def _packed(value: str | None) -> str:
    """As browsers read an address: without white space and control characters."""
    return re.sub(r"[\x00-\x20]", "", value or "").lower()


class Page(HTMLParser):
    """What a browser would run of a page: scripts, handlers, addresses, styles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "script":
            source = values.get("src") or ""
            if not source.startswith(("/static/", "/words.js")):
                self.found.append(f"script {source!r}")
        if tag in ("iframe", "object", "embed", "base", "style", "meta") and (
            tag != "meta" or "http-equiv" in values
        ):
            self.found.append(tag)
        for name, value in values.items():
            if name.startswith(("on", "hx-on")) or name in ("style", "srcdoc"):
                self.found.append(f"{tag} {name}")
            if name in ADDRESSES and not OWN_ADDRESS.match(_packed(value)):
                self.found.append(f"{tag} {name}={value!r:.60}")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def assert_harmless(html: str, where: str) -> str:
    """Its words, as a reader sees them."""
    page = Page()
    page.feed(html)
    page.close()
    assert page.found == [], where
    return "".join(page.words)


def test_no_page_makes_a_script_of_a_name(full: FullSite) -> None:
    shown = 0
    for route in full.routes():
        for query in ("", f"?q={MARK}%22%3E%3Cscript%3E&image=shop&tag=%22%3E%3Cscript%3E&ids=1,2"):
            response = full.site.client.get(route.address + query)
            if response.streaming or not response.headers.get("Content-Type", "").startswith(
                "text/html"
            ):
                continue
            text = assert_harmless(response.content.decode(), route.address)
            shown += f"<script>{MARK}()" in text
    # It is not that the rows were not shown.
    assert shown > 12


def test_what_a_form_gives_back_is_text(full: FullSite) -> None:
    for address, fields in (
        ("containers/new/", ("image", "name", "command", "env", "host_port", "user")),
        ("builds/new/", ("tag", "dockerfile", "dockerfile_path", "args", "target", "upload")),
        ("images/pull/", ("name",)),
        (f"images/i/{full.image.short_id}/tag/", ("name",)),
        ("containers/web/settings/", ("name",)),
        ("containers/web/terminals/", ("kind", "command", "user")),
    ):
        body = dict.fromkeys(fields, HOSTILE)
        response = full.site.client.post(full.site.base + address, body)
        assert response.status_code == 422, address
        text = assert_harmless(response.content.decode(), address)
        assert MARK in text + response.content.decode(), address


def test_events_for_htmx_are_json_of_one_line(full: FullSite) -> None:
    address = f"{full.site.base}containers/web-2/stop/"
    response = full.site.client.post(address, headers={"HX-Request": "true"})
    assert response.status_code == 422
    events = json.loads(response.headers["HX-Trigger"])
    assert set(events) == {"quayside:toast"}
    assert response.headers["HX-Trigger"].isascii()


def test_files_are_never_pages(full: FullSite) -> None:
    """A log is a download, whatever is in it."""
    response = full.site.client.get(f"{full.site.base}containers/web/logs/download/")
    assert response.headers["Content-Disposition"].startswith("attachment")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert policy_of(response) == POLICY


# Where a module turns text into markup: only what this site's own pages answered.
OWN_PAGES = re.compile(
    r"\.innerHTML = await response\.text\(\);"
    r"|new DOMParser\(\)\.parseFromString\(html, \"text/html\"\);"
)
SINKS = re.compile(
    r"innerHTML|outerHTML\s*=|insertAdjacentHTML|document\.write|DOMParser|srcdoc"
    r"|createContextualFragment|\beval\(|new Function|setTimeout\(\s*[\"'`]|setHTML"
)


def test_modules_write_text_only() -> None:
    lines = [
        (file.name, line.strip())
        for file in STATIC.glob("*.js")
        for line in file.read_text().splitlines()
        if SINKS.search(line) and not line.strip().startswith(("//", "*"))
    ]
    assert [line for line in lines if not OWN_PAGES.search(line[1])] == []
    # A viewer of logs, a terminal or a build's output has none at all.
    assert {name for name, _ in lines} <= {"app.js", "live.js", "runform.js"}


def test_the_policy_is_the_only_one_and_cannot_be_loosened_by_settings() -> None:
    directives = settings.CONTENT_SECURITY_POLICY["DIRECTIVES"]
    assert not any("unsafe" in str(value) for values in directives.values() for value in values)
    assert not getattr(settings, "CONTENT_SECURITY_POLICY_REPORT_ONLY", None)


LINES = (
    f"<script>window.{MARK} = 1</script>",
    f"<img src=x onerror=window.{MARK}=1>",
    f"\\033]8;;javascript:window.{MARK}=1\\033\\\\link\\033]8;;\\033\\\\",
    f"\\033]0;<script>window.{MARK}=1</script>\\007title",
    f"\\033[31m<svg/onload=window.{MARK}=1>\\033[0m",
    f"javascript:window.{MARK}=1",
)


def test_what_a_program_prints_is_text_in_a_browser(box_site: BoxSite) -> None:
    prints = "; ".join(f"printf '%b\\n' '{line}'" for line in LINES)
    box = box_site.run(f"{prints}; echo the end; sleep 600")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page()
        blocked: list[str] = []
        page.on("console", lambda message: blocked.append(message.text))
        page.on("pageerror", lambda error: blocked.append(str(error)))
        page.goto(f"{box_site.url}/sign-in/")
        page.fill("input[name=username]", USERNAME)
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")
        page.wait_for_url("**/t/team/")
        page.goto(f"{box_site.url}/t/team/containers/{box.name}/logs/")
        log = page.locator("[data-module=logs]")
        log.get_by_text("the end").wait_for()
        text = log.inner_text()
        assert LINES[0] in text and LINES[1] in text and "<svg/onload" in text
        assert log.locator("script, img, svg[onload], a[href^=javascript]").count() == 0
        assert page.evaluate(f"window.{MARK}") is None
        assert MARK not in page.title()
        # Not even the policy had anything to stop.
        assert blocked == []
        browser.close()
