"""The console's pages as a person uses them, by what is on the screen and in no language."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import Page, expect

# xterm draws its rows as text; a row's trailing blanks are its own.
_ROWS = ".terminal-screen .xterm-rows > div"


def eventually(condition: Callable[[], bool], seconds: float = 15, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come to be: {what}"
        time.sleep(0.05)


def answer(port: int) -> str:
    """What the published port says; empty while nobody answers."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=2) as response:
            text: str = response.read().decode()
            return text
    except OSError:
        return ""


def build_folder(page: Page, folder: Path, tag: str) -> int:
    """From any page of the team: new build from a folder; the build's number, on its page."""
    page.locator("a[href$='/builds/']:visible").first.click()
    page.locator("a[href$='/builds/new/']").first.click()
    page.set_input_files("[data-folder-input]", str(folder))
    page.fill("input[name=tag]", tag)
    page.locator("[data-build-submit]").click()
    page.wait_for_url(re.compile(r"/builds/\d+/$"))
    return int(page.url.rstrip("/").rpartition("/")[2])


def rebuild_folder(page: Page, folder: Path) -> int:
    """On a build's page: again, from the folder as it is now."""
    before = page.url
    page.locator("[data-again] summary").click()
    page.set_input_files("[data-again] [data-folder-input]", str(folder))
    page.locator("[data-again] [data-build-submit]").click()
    page.wait_for_url(lambda url: url != before and re.search(r"/builds/\d+/$", url) is not None)
    return int(page.url.rstrip("/").rpartition("/")[2])


def build_ends(page: Page, state: str = "done", seconds: float = 120) -> dict[str, str]:
    """Wait for the rail to end so; {instruction: cached | built | failed}."""
    rail = page.locator("[data-module=build]")
    expect(rail).to_have_attribute("data-state", state, timeout=seconds * 1000)
    return steps(page)


def steps(page: Page) -> dict[str, str]:
    return {
        step.locator(".build-text").inner_text(): str(step.get_attribute("data-state"))
        for step in page.locator(".build-step").all()
    }


def run_image(
    page: Page,
    image: str,
    name: str,
    *,
    port: tuple[int, int] | None = None,
    attached: bool = False,
    interactive: bool = False,
    tty: bool = False,
) -> None:
    """The run form, filled in and sent."""
    page.locator("a[href$='/containers/']:visible").first.click()
    page.locator("a[href$='/containers/new/']").first.click()
    page.fill("input[name=image]", image)
    page.fill("input[name=name]", name)
    page.locator(
        f"label:has(input[name=mode][value={'attached' if attached else 'detached'}])"
    ).click()
    for field, wanted in (("interactive", interactive), ("tty", tty)):
        if wanted:
            page.locator(f"input[name={field}]").check(force=True)
    if port:
        page.locator("input[name=host_port]").first.fill(str(port[0]))
        page.locator("input[name=container_port]").first.fill(str(port[1]))
    page.locator("[data-run-form] button.button-primary").click()
    page.wait_for_url(re.compile(rf"/containers/({name}/|$)"))


def container(page: Page, name: str, tab: str = "logs") -> None:
    """To the container's page by the list, as a person goes."""
    page.locator("a[href$='/containers/']:visible").first.click()
    page.locator(f"a.name[href$='/containers/{name}/logs/']").click()
    if tab != "logs":
        page.locator(f"nav.tabs a[href$='/{name}/{tab}/']").click()


def state_of(page: Page) -> str:
    """The tone of the page's state mark: run, idle, fail …"""
    mark = page.locator("#container-head .state").first
    return re.findall(r"state-(\w+)", mark.get_attribute("class") or "")[0]


def stop(page: Page) -> None:
    page.locator("#container-head button[formaction$='/stop/']").click()
    expect(page.locator("#container-head button[formaction$='/start/']").first).to_be_visible(
        timeout=20_000
    )


def start(page: Page, mode: str = "detached") -> None:
    if mode == "detached":
        page.locator("#container-head button[formaction$='/start/']").first.click()
        expect(page.locator("#container-head button[formaction$='/stop/']")).to_be_visible()
        return
    page.locator("#container-head .joined summary").click()
    with page.expect_navigation(url=re.compile(r"/terminal/[0-9a-f-]{36}/|/logs/")):
        page.locator(f"#container-head .menu-item[value={mode}]").click()


def log_has(page: Page, text: str, times: int = 1, seconds: float = 15) -> None:
    rows = page.locator(".log-row .log-text", has_text=text)
    eventually(lambda: rows.count() == times, seconds, f"{times} × {text!r}: {log(page)!r}")


def log(page: Page) -> list[str]:
    return page.locator(".log-row .log-text").all_inner_texts()


def screen(page: Page) -> str:
    """What the terminal shows."""
    return "\n".join(
        row.replace("\xa0", " ").rstrip() for row in page.locator(_ROWS).all_inner_texts()
    )


def screen_has(page: Page, pattern: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not re.search(pattern, screen(page), re.MULTILINE):
        assert time.monotonic() < deadline, f"no {pattern!r} on:\n{screen(page)}"
        page.wait_for_timeout(50)


def type_line(page: Page, text: str) -> None:
    page.locator(".terminal-screen textarea").focus()
    page.keyboard.type(text)
    page.keyboard.press("Enter")
