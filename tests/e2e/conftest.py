"""A running site, a registry with `node` in it, and a browser: all real."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

from tests.node_image import CONFIG, node_tar
from tests.registry import push_image, running_registry
from tests.site import PASSWORD, USERNAME, Site, running_site

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A docker-registry on loopback that stands for docker.io and has library/node."""
    folder = tmp_path_factory.mktemp("mirror")
    with running_registry(folder) as registry:
        push_image(registry, "library/node", layers=[node_tar()], config=CONFIG)
        yield registry.url


@pytest.fixture(scope="session")
def site(mirror: str) -> Iterator[Site]:
    with running_site(QUAYSIDE_REGISTRY_MIRRORS=f"docker.io={mirror}") as site:
        yield site


# Of a module and no longer: while it lives its event loop counts as running in this thread, and
# tests with a loop of their own could not have one.
@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    yield browser
    browser.close()


@dataclass
class Visitor:
    """A page of a signed-in person; what the browser complained about fails the test."""

    page: Page
    site: Site
    complaints: list[str]

    def open(self, path: str) -> Page:
        self.page.goto(self.site.url + path)
        return self.page


def visitor(
    browser: Browser,
    site: Site,
    *,
    width: int = 1440,
    height: int = 900,
    language: str = "en",
    dark: bool = False,
) -> tuple[BrowserContext, Visitor]:
    """Signed in, in that language, at that size."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        locale="ko-KR" if language == "ko" else "en-GB",
        color_scheme="dark" if dark else "light",
        has_touch=width < 640,
    )
    context.set_default_timeout(15_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    page.goto(f"{site.url}/sign-in/")
    page.fill("input[name=username]", USERNAME)
    page.fill("input[name=password]", PASSWORD)
    page.press("input[name=password]", "Enter")
    page.wait_for_url("**/t/team/")
    return context, Visitor(page, site, complaints)


@pytest.fixture
def someone(browser: Browser, site: Site, tmp_path: Path) -> Iterator[Visitor]:
    context, who = visitor(browser, site)
    yield who
    if not who.page.is_closed():
        who.page.screenshot(path=str(tmp_path / "last.png"))
    context.close()
    assert who.complaints == []
