"""By keyboard alone, in a log's own tools, and beside a queue that is full."""

from __future__ import annotations

import time

from playwright.sync_api import expect

from tests.e2e import pages
from tests.e2e.conftest import Visitor
from tests.e2e.test_lists import build_text

COLOURS = r"""FROM node
STOPSIGNAL SIGKILL
CMD printf 'plain\n\033[32mgreen\033[0m\n'; echo wrong >&2; exec sleep 600
"""


def test_lists_and_pages_by_keyboard(someone: Visitor) -> None:
    page = build_text(someone, COLOURS, "keys")
    pages.build_ends(page)
    for name in ("keys-1", "keys-2"):
        pages.run_image(page, "keys", name)
    someone.open("/t/team/containers/")
    page.keyboard.press("/")
    page.keyboard.type("keys-")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=keys-*")
    expect(page.locator("tbody tr[data-row]")).to_have_count(2)
    page.locator("h1").click()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator("tbody tr").nth(1).locator("[data-select]")).to_be_checked()
    page.keyboard.press("k")
    page.keyboard.press("l")
    page.wait_for_url("**/containers/keys-*/logs/")
    page.go_back()
    # The first thing Tab reaches leads past the navigation.
    page.reload()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('main') !== null || location.hash !== ''")


def test_a_log_s_tools(someone: Visitor) -> None:
    page = build_text(someone, COLOURS, "tools")
    pages.build_ends(page)
    pages.run_image(page, "tools", "tools")
    pages.container(page, "tools")
    pages.log_has(page, "green")
    expect(page.locator(".log-text .ansi-green")).to_have_text("green")
    wrong = page.locator(".log-row", has_text="wrong")
    plain = page.locator(".log-row", has_text="plain")
    # stderr is told apart, and not by colour alone.
    assert wrong.get_attribute("class") != plain.get_attribute("class")
    expect(plain.locator(".log-time")).to_be_visible()
    page.locator(".log-bar .log-button[aria-pressed]").first.click()
    expect(plain.locator(".log-time")).to_be_hidden()
    page.fill(".log-search", "gree")
    expect(page.locator(".log-count")).to_contain_text("1")


def test_a_start_does_not_wait_behind_builds(someone: Visitor) -> None:
    """Eight builds that take a while fill their queue; a container starts all the same."""
    page = build_text(someone, 'FROM node\nSTOPSIGNAL SIGKILL\nCMD ["sleep", "600"]\n', "quick")
    pages.build_ends(page)
    addresses = []
    for number in range(8):
        build_text(someone, f"FROM node\nRUN sleep 40 && echo {number}\n", f"slow-{number}")
        addresses.append(page.url)
    began = time.monotonic()
    pages.run_image(page, "quick", "quick")
    pages.container(page, "quick")
    expect(page.locator("#container-head button[formaction$='/stop/']")).to_be_visible(
        timeout=10_000
    )
    took = time.monotonic() - began
    for address in addresses:
        page.goto(address)
        page.locator(".page-head .button-danger").click()
    for address in addresses:
        page.goto(address)
        pages.build_ends(page, "cancelled", seconds=20)
    assert took < 10
