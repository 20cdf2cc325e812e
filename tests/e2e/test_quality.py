"""What a person feels: how fast a page is there, whether it jumps, whether everybody can use it."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e import pages
from tests.e2e.conftest import visitor
from tests.site import ROOT, Site

AXE = (ROOT / "node_modules/axe-core/axe.min.js").read_text()
IMAGES = ROOT / "docs" / "images"

# Largest paint and layout shifts, gathered from before the first byte of the page.
_VITALS = """
window.vitals = { paint: 0, shift: 0 };
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.vitals.paint = entry.startTime;
}).observe({ type: "largest-contentful-paint", buffered: true });
new PerformanceObserver((list) => {
  for (const { value, hadRecentInput } of list.getEntries()) {
    if (!hadRecentInput) window.vitals.shift += value;
  }
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.fixture(scope="module")
def shown(site: Site, browser: Browser) -> Iterator[dict[str, str]]:
    """Things to look at, by name: pages of a build, an image, a running container."""
    context, who = visitor(browser, site)
    page = who.page
    who.open("/t/team/builds/new/")
    page.fill(
        "[data-editor] textarea", 'FROM node\nENV QUAY=1\nRUN echo ready\nCMD ["sleep", "900"]\n'
    )
    page.fill("input[name=tag]", "quality")
    page.locator("[data-build-submit]").click()
    page.wait_for_url(re.compile(r"/builds/\d+/$"))
    pages.build_ends(page)
    build = page.url.removeprefix(site.url)
    pages.run_image(page, "quality", "quality-runs", port=(0, 80))
    who.open("/t/team/images/?q=quality")
    image = page.locator("tbody a[href*='/images/i/']").first.get_attribute("href") or ""
    context.close()
    yield {
        "dashboard": "/t/team/",
        "builds": "/t/team/builds/",
        "build": build,
        "build-new": "/t/team/builds/new/",
        "images": "/t/team/images/",
        "layers": image,
        "config": image.replace("/layers/", "/config/"),
        "pull": "/t/team/images/pull/",
        "containers": "/t/team/containers/",
        "run": "/t/team/containers/new/?image=quality",
        "logs": "/t/team/containers/quality-runs/logs/",
        "terminal": "/t/team/containers/quality-runs/terminal/",
        "files": "/t/team/containers/quality-runs/files/?path=/etc",
        "changes": "/t/team/containers/quality-runs/changes/",
        "inspect": "/t/team/containers/quality-runs/inspect/",
        "settings": "/t/team/containers/quality-runs/settings/",
    }


@pytest.mark.parametrize("name", ["dashboard", "containers", "builds", "images", "build"])
def test_a_page_is_there_in_half_a_second_and_does_not_jump(
    browser: Browser, site: Site, shown: dict[str, str], name: str
) -> None:
    context, who = visitor(browser, site)
    context.add_init_script(_VITALS)
    paints = []
    for _ in range(3):
        who.open(shown[name])
        who.page.wait_for_timeout(1200)
        vitals = who.page.evaluate("window.vitals")
        paints.append(vitals["paint"])
        assert vitals["shift"] < 0.02
    context.close()
    assert statistics.median(paints) < 500
    assert who.complaints == []


@pytest.mark.parametrize(
    ("width", "language", "dark"), [(1440, "en", False), (390, "ko", True)], ids=["wide", "phone"]
)
def test_every_page_is_axe_clean_and_fits(
    browser: Browser, site: Site, shown: dict[str, str], width: int, language: str, dark: bool
) -> None:
    context, who = visitor(
        browser, site, width=width, height=900 if width > 640 else 844, language=language, dark=dark
    )
    found = []
    folder = Path(os.environ.get("QUAYSIDE_SCREENS", IMAGES / "tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in shown.items():
        page = who.open(path)
        page.wait_for_timeout(400)
        page.screenshot(path=str(folder / f"{name}-{width}-{language}.png"))
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if wide > 0:
            found.append(f"{name}: {wide} px wider than the screen")
        page.evaluate(AXE)
        result = page.evaluate("axe.run({ resultTypes: ['violations'] })")
        found += [
            f"{name}: {violation['id']}: {node['target']} {node['failureSummary']}"
            for violation in result["violations"]
            for node in violation["nodes"][:3]
        ]
    context.close()
    assert found == []
    assert who.complaints == []


def test_the_first_log_line_is_three_clicks_from_signing_in(
    browser: Browser, site: Site, shown: dict[str, str]
) -> None:
    context, who = visitor(browser, site)
    who.page.locator("a.name[href$='/quality-runs/logs/'], a[href$='/quality-runs/']").first.click()
    expect(who.page.locator(".log-view")).to_be_visible()
    context.close()


def test_a_hundred_thousand_lines_do_not_freeze_the_page(
    browser: Browser, site: Site, shown: dict[str, str]
) -> None:
    """None lost, none doubled over a reconnect, few rows in the page, and it answers throughout."""
    context, who = visitor(browser, site)
    page = who.page
    _run(page, "lines", "sh -c 'seq -f \"line %.0f\" 100000; echo at the end; sleep 900'")
    who.open("/t/team/containers/lines/logs/")
    page.evaluate(
        "window.longest = 0; let last = performance.now();"
        "const beat = () => { const now = performance.now();"
        "window.longest = Math.max(window.longest, now - last); last = now;"
        "requestAnimationFrame(beat); }; requestAnimationFrame(beat);"
    )
    pages.log_has(page, "at the end", seconds=40)
    assert page.locator(".log-row").count() <= 2000
    assert page.evaluate("window.longest") < 500
    page.fill(".log-search", "line 99999")
    expect(page.locator(".log-count")).to_contain_text("1")
    # The network goes and comes back: the same lines, once each.
    context.set_offline(True)
    page.wait_for_timeout(300)
    context.set_offline(False)
    page.fill(".log-search", "line ")
    expect(page.locator(".log-count")).to_contain_text("100,000", timeout=20_000)
    with page.expect_download() as download:
        page.locator(".log-bar a[href*=download]").click()
    text = Path(download.value.path()).read_text()
    assert text.count("\n") == 100_001
    context.close()


def test_a_gigabyte_of_context_leaves_web_small(
    site: Site, shown: dict[str, str], browser: Browser, tmp_path: Path
) -> None:
    """1 GB goes up in pieces; no web process grows over 200 MB."""
    folder = tmp_path / "big"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY small /small\n")
    (folder / "small").write_text("small")
    with (folder / "blob").open("wb") as file:
        file.truncate(1 << 30)
    context, who = visitor(browser, site)
    page = who.page
    who.open("/t/team/builds/new/")
    page.set_input_files("[data-folder-input]", str(folder))
    page.fill("input[name=tag]", "big")
    largest = 0
    deadline = time.monotonic() + 120
    while not page.locator("[data-upload-bar].done").count():
        assert time.monotonic() < deadline
        largest = max(largest, *(_resident(pid) for pid in site.pids("web")))
        page.wait_for_timeout(100)
    assert largest < 200 << 20
    page.locator("[data-build-submit]").click()
    page.wait_for_url(re.compile(r"/builds/\d+/$"))
    pages.build_ends(page)
    context.close()


def _resident(pid: int) -> int:
    """Bytes; 0 for a process that has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def _run(page: Page, name: str, command: str) -> None:
    page.goto(
        re.sub(r"(https?://[^/]+).*", r"\1", page.url) + "/t/team/containers/new/?image=quality"
    )
    page.fill("input[name=name]", name)
    page.locator("details.more summary").first.click()
    page.fill("input[name=command]", command)
    page.locator("[data-run-form] button.button-primary").click()
    page.wait_for_url(re.compile(rf"/containers/({name}/|$)"))


_MANY = """
from django.utils import timezone
from engine.models import Build, Container, Image, Namespace, Node, Tag
namespace, node = Namespace.objects.get(name="team"), Node.objects.get()
now = timezone.now()
images = Image.objects.bulk_create(
    Image(namespace=namespace, digest=f"sha256:{n:064x}", manifest_digest=f"sha256:{n:064x}",
          size=n, architecture="amd64", config={}, layers=[], created_at=now)
    for n in range(5000)
)
Tag.objects.bulk_create(
    Tag(namespace=namespace, image=image, repository=f"docker.io/many/app-{n}", tag="latest")
    for n, image in enumerate(images)
)
Container.objects.bulk_create(
    Container(uid=f"{n:064x}", namespace=namespace, node=node, name=f"many-{n}", image=images[n],
              image_name=f"many/app-{n}", settings={"chain": ""}, state="exited", exit_code=n % 3,
              started_at=now, finished_at=now)
    for n in range(5000)
)
Build.objects.bulk_create(
    Build(namespace=namespace, node=node, number=100_000 + n, tag=f"many-{n}", state="done",
          image=images[n], started_at=now, finished_at=now)
    for n in range(5000)
)
"""
_NO_MORE = """
from engine.models import Build, Container, Image
Build.objects.filter(number__gte=100_000).delete()
Container.objects.filter(name__startswith="many-").delete()
Image.objects.filter(config={}).delete()
"""


@pytest.fixture
def many(site: Site, shown: dict[str, str]) -> Iterator[None]:
    """5,000 containers, images and builds."""
    site.manage("shell", source=_MANY)
    yield
    site.manage("shell", source=_NO_MORE)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("name", ["containers", "images", "builds"])
def test_a_list_of_5000_is_answered_in_80_ms(browser: Browser, site: Site, name: str) -> None:
    """p95 of 40 requests over the network; the quietest of three rounds on a shared machine."""
    context, _ = visitor(browser, site)
    cookies = "; ".join(f"{c['name']}={c['value']}" for c in context.cookies())
    context.close()
    connection = HTTPConnection("127.0.0.1", site.port)
    rounds = []
    for _ in range(3):
        times = []
        for _ in range(40):
            began = time.perf_counter()
            connection.request("GET", f"/t/team/{name}/", headers={"Cookie": cookies})
            response = connection.getresponse()
            body = response.read()
            times.append(time.perf_counter() - began)
            assert response.status == 200
        assert body.count(b"data-row=") == 100
        rounds.append(sorted(times)[37])
    connection.close()
    assert min(rounds) < 0.08, rounds
