"""The study notes in the browser, from the Dockerfile to `docker start -a -i`, on real parts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e import pages
from tests.e2e.conftest import Visitor, visitor
from tests.site import Site, free_port

APP = Path(__file__).resolve().parents[1] / "data" / "app"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """The source on a person's machine, to be changed."""
    return Path(shutil.copytree(APP, tmp_path / "app"))


@pytest.fixture(params=["english, wide", "korean, phone"])
def person(
    request: pytest.FixtureRequest, browser: Browser, site: Site, tmp_path: Path
) -> Iterator[Visitor]:
    phone = request.param == "korean, phone"
    context, who = visitor(
        browser,
        site,
        width=390 if phone else 1440,
        height=844 if phone else 900,
        language="ko" if phone else "en",
    )
    yield who
    who.page.screenshot(path=str(tmp_path / "last.png"))
    context.close()
    assert who.complaints == []


def test_the_tour(person: Visitor, app: Path, request: pytest.FixtureRequest) -> None:
    page = person.page
    suffix = "ko" if "korean" in request.node.name else "en"
    tag, first, second = f"notes-{suffix}", f"web-{suffix}", f"web2-{suffix}"
    port, other_port = free_port(), free_port()

    # docker build .
    pages.build_folder(page, app, tag)
    built = pages.build_ends(page)
    assert list(built) == [
        "FROM node",
        "WORKDIR /app",
        "COPY package.json /app",
        "COPY greeting /app/greeting",
        "RUN npm install",
        "COPY . /app",
        "EXPOSE 80",
        'CMD ["node","server.js"]',
    ]
    if suffix == "en":
        assert built["RUN npm install"] == "built"
    build_url = page.url

    # docker run -p 3000:80, and the published port answers
    pages.run_image(page, tag, first, port=(port, 80))
    pages.container(page, first)
    pages.log_has(page, "listening on 80")
    pages.eventually(lambda: pages.answer(port) == "Hello, quay\n")
    expect(page.locator(f"#container-head a[href='http://127.0.0.1:{port}/']")).to_be_visible()

    # docker logs -f shows that request while following
    pages.log_has(page, "GET /")

    # A changed source does not show in the old container, nor after its restart
    source = app / "server.js"
    source.write_text(source.read_text().replace("quay", f"harbour {suffix}"))
    assert pages.answer(port) == "Hello, quay\n"

    # The rebuild keeps npm install cached and says what changed
    page.goto(build_url)
    pages.build_ends(page)
    pages.rebuild_folder(page, app)
    again = pages.build_ends(page)
    assert again["RUN npm install"] == "cached"
    assert again["COPY package.json /app"] == "cached"
    assert again["COPY . /app"] == "built"
    expect(page.locator(".build-break")).to_contain_text("server.js")
    assert pages.answer(port) == "Hello, quay\n"

    # A second container from the new image, beside the first
    pages.run_image(page, tag, second, port=(other_port, 80))
    pages.eventually(lambda: pages.answer(other_port) == f"Hello, harbour {suffix}\n")
    assert pages.answer(port) == "Hello, quay\n"

    # docker stop; docker ps -a shows it exited; docker start, detached and attached
    pages.container(page, first)
    pages.stop(page)
    assert pages.answer(port) == ""
    pages.start(page)
    pages.eventually(lambda: pages.answer(port) == "Hello, quay\n")
    pages.log_has(page, "listening on 80", times=2)
    pages.stop(page)
    pages.start(page, "attached")
    pages.eventually(lambda: pages.answer(port) == "Hello, quay\n")


def test_node_in_a_terminal(person: Visitor, app: Path, request: pytest.FixtureRequest) -> None:
    """docker run -it node: what is typed is answered, and leaving node ends the container."""
    page = person.page
    name = f"repl-{'ko' if 'korean' in request.node.name else 'en'}"
    _have_node(person, app)
    pages.run_image(page, "node", name, attached=True, interactive=True, tty=True)
    pages.screen_has(page, r"^> ?$")
    pages.type_line(page, "1+1")
    pages.screen_has(page, r"^2$")

    # Hangul is typed, echoed and evaluated
    pages.type_line(page, "'한글' + '입력'")
    pages.screen_has(page, r"^'한글입력'$")

    # After a reload the same screen is there
    page.reload()
    pages.screen_has(page, r"^'한글입력'$")
    pages.type_line(page, "40+2")
    pages.screen_has(page, r"^42$")

    pages.type_line(page, ".exit")
    expect(page.locator("#container-head button[formaction$='/start/']").first).to_be_visible()

    # docker start -a -i
    pages.start(page, "interactive")
    pages.screen_has(page, r"^> ?$")
    pages.type_line(page, "6*7")
    pages.screen_has(page, r"^42$")
    pages.type_line(page, ".exit")
    expect(page.locator("#container-head button[formaction$='/start/']").first).to_be_visible()
    page.locator("nav.tabs a[href$='/logs/']").click()
    pages.log_has(page, "> 6*7")


def test_full_screen_programs_redraw_after_a_reload(someone: Visitor, app: Path) -> None:
    page = someone.page
    _have_node(someone, app)
    page.goto(f"{someone.site.url}/t/team/containers/new/")
    page.fill("input[name=image]", "node")
    page.fill("input[name=name]", "idle")
    page.locator("details.more summary").first.click()
    page.fill("input[name=command]", "sleep 3600")
    page.locator("[data-run-form] button.button-primary").click()
    pages.container(page, "idle", "terminal")
    page.locator("form:has(input[name=kind][value=exec]) button.button-primary").click()
    pages.screen_has(page, r"[#$] ?$")

    pages.type_line(page, "vi /tmp/note")
    pages.screen_has(page, r"^~$")
    page.keyboard.type("itide and 항구")
    pages.screen_has(page, r"^tide and 항구")
    page.reload()
    pages.screen_has(page, r"^tide and 항구")
    pages.screen_has(page, r"^~$")
    page.locator(".terminal-screen textarea").focus()
    page.keyboard.press("Escape")
    page.keyboard.type(":wq\n")
    pages.screen_has(page, r"[#$] ?$")
    pages.type_line(page, "cat /tmp/note")
    pages.screen_has(page, r"^tide and 항구$")

    pages.type_line(page, "top")
    pages.screen_has(page, r"PID USER")
    page.reload()
    pages.screen_has(page, r"PID USER")
    page.locator(".terminal-screen textarea").focus()
    page.keyboard.type("q")
    pages.type_line(page, "exit 3")
    expect(page.locator(".terminal-state")).to_contain_text("3")
    # An exec's end is not the container's.
    expect(page.locator("#container-head button[formaction$='/stop/']")).to_be_visible()


def _have_node(who: Visitor, app: Path) -> None:
    """FROM node has fetched it, or it is pulled now."""
    who.open("/t/team/images/pull/?name=node")
    who.page.locator("main form button.button-primary").first.click()
    who.open("/t/team/images/")
    expect(who.page.locator("main", has_text="node")).to_be_visible(timeout=60_000)
    pages.eventually(lambda: _pulled(who), 90, "node is pulled")


def _pulled(who: Visitor) -> bool:
    who.open("/t/team/images/?q=node")
    return who.page.locator("tbody tr").count() > 0
