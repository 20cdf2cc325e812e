"""Lists and buttons that change while somebody uses them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e import pages
from tests.e2e.conftest import Visitor

SLEEPER = 'FROM node\nSTOPSIGNAL SIGKILL\nCMD ["sleep", "600"]\n'


def build_text(who: Visitor, dockerfile: str, tag: str) -> Page:
    page = who.open("/t/team/builds/new/")
    page.fill("textarea[name=dockerfile]", dockerfile)
    page.fill("input[name=tag]", tag)
    page.locator("[data-build-submit]").click()
    page.wait_for_url(re.compile(r"/builds/\d+/$"))
    return page


def row(page: Page, name: str) -> Locator:
    return page.locator("tbody tr", has=page.locator(f"a.name[href$='/{name}/logs/']"))


def test_chosen_containers_are_stopped_started_and_removed_together(someone: Visitor) -> None:
    page = build_text(someone, SLEEPER, "sleeper")
    pages.build_ends(page)
    names = ("bulk-1", "bulk-2")
    for name in names:
        pages.run_image(page, "sleeper", name)
    for action, able in (("stop", "start"), ("start", "stop")):
        someone.open("/t/team/containers/?q=bulk-")
        for name in names:
            row(page, name).locator("[data-select]").check()
        page.locator(f"[data-selection] button[value={action}]").click()
        for name in names:
            button = row(page, name).locator(f"button[formaction$='/{able}/']")
            expect(button).to_be_enabled(timeout=15_000)
        expect(page.locator("[data-selection]")).to_be_hidden()

    row(page, names[0]).locator("[data-select]").check()
    page.locator("[data-selection] .button-danger").click()
    page.locator("dialog[open] .button-danger").click()
    expect(row(page, names[0])).to_have_attribute("data-gone", "", timeout=15_000)
    expect(page.locator("[data-selection]")).to_be_hidden()
    expect(row(page, names[1]).locator("button[formaction$='/stop/']")).to_be_enabled()


def test_a_container_that_does_not_listen_can_be_killed_while_it_stops(someone: Visitor) -> None:
    page = build_text(someone, 'FROM node\nCMD ["sleep", "600"]\n', "deaf")
    pages.build_ends(page)
    pages.run_image(page, "deaf", "deaf")
    pages.container(page, "deaf")
    page.locator("#container-head button[formaction$='/stop/']").click()
    expect(page.locator("#container-head .state-build")).to_be_visible()
    page.locator("#container-head details.menu summary").click()
    page.locator("#container-head button[formaction$='/kill/']").click()
    # docker's ten seconds of patience would not be over
    expect(page.locator("#container-head button[formaction$='/start/']").first).to_be_visible(
        timeout=7_000
    )


@pytest.mark.parametrize("keyboard", [False, True])
def test_a_pressed_button_says_what_it_has_become(someone: Visitor, keyboard: bool) -> None:
    """Cancel is where Build again comes to be, and has the focus then."""
    page = build_text(someone, f"FROM node\nRUN sleep {60 + keyboard}\n", "long")
    cancel = page.locator("#build-head form[action$='/cancel/'] button")
    expect(cancel).to_be_visible()
    word = cancel.inner_text()
    if keyboard:
        cancel.press("Enter")
    else:
        cancel.click()
    again = page.locator("#build-head form[action$='/again/'] button")
    expect(again).to_be_visible(timeout=15_000)
    assert again.inner_text() != word
    buttons = page.locator("#build-head :is(button, a.button)")
    expect(buttons.filter(has_text=word)).to_have_count(0)


def test_build_waits_for_a_folder_that_is_still_read(someone: Visitor, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "Dockerfile").write_text("FROM node\nCOPY . /app\n")
    page = someone.open("/t/team/builds/new/")
    page.evaluate(
        "() => { const text = File.prototype.text; File.prototype.text = async function () {"
        " await new Promise((done) => setTimeout(done, 1000)); return text.call(this); }; }"
    )
    page.set_input_files("[data-folder-input]", str(tmp_path / "app"))
    page.locator("[data-build-submit]").click()
    page.wait_for_url(re.compile(r"/builds/\d+/$"))
    pages.build_ends(page)
