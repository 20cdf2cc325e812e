"""A container's Stats tab through its stop and start, and a limit that is changed beside it."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.e2e import pages
from tests.e2e.conftest import Visitor
from tests.e2e.test_lists import build_text

BUSY = 'FROM node\nSTOPSIGNAL SIGKILL\nCMD ["sh", "-c", "while :; do :; done"]\n'


def figure(page: Page, chart: str) -> str:
    return page.locator(f"[data-chart={chart}] [data-now]").inner_text()


def test_figures_come_stop_and_come_again_and_a_limit_shows(someone: Visitor) -> None:
    page = build_text(someone, BUSY, "busy")
    pages.build_ends(page)
    pages.run_image(page, "busy", "busy")
    pages.container(page, "busy", "stats")
    pages.eventually(lambda: float(figure(page, "cpu").strip("%–") or 0) > 20, what="a busy loop")
    assert re.fullmatch(r"[\d.]+[KM]iB / [\d.]+[GT]iB", figure(page, "memory"))
    assert figure(page, "pids") == "1"
    expect(page.locator("[data-processes] tbody tr")).to_contain_text("while :; do :; done")
    drawn = page.locator("[data-chart=cpu] svg")
    assert "%" in str(drawn.get_attribute("aria-label"))
    assert str(drawn.locator("path").last.get_attribute("d")).startswith("M")

    pages.stop(page)
    expect(page.locator("[data-when=stopped]")).to_be_visible()
    expect(page.locator("[data-processes]")).to_be_hidden()
    assert figure(page, "cpu") == "–"
    pages.start(page)
    expect(page.locator("[data-when=stopped]")).to_be_hidden()
    pages.eventually(lambda: figure(page, "pids") == "1", what="figures after the start")

    page.locator("nav.tabs a[href$='/busy/settings/']").click()
    page.fill("input[name=memory]", "96m")
    page.fill("input[name=cpus]", "0.2")
    page.locator("form[action$='/limits/'] button.button-primary").click()
    expect(page.locator("#limits-now time")).to_be_visible()
    expect(page.locator("input[name=memory]")).to_have_value("96m")
    page.locator("nav.tabs a[href$='/busy/stats/']").click()
    pages.eventually(lambda: figure(page, "memory").endswith("/ 96MiB"), what="the new limit")
    pages.eventually(
        lambda: 0 < float(figure(page, "cpu").strip("%–") or 0) < 40, what="a fifth of a processor"
    )
    pages.stop(page)  # it would be busy beside all other tests
