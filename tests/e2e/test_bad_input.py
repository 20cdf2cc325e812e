"""What people get wrong, as they see it: each mistake at its place, nothing they typed lost, and
the way on. In English; what is looked at most in Korean on a phone, too."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e import pages
from tests.e2e.conftest import Visitor, visitor
from tests.registry import RegistryServer, push_image
from tests.rootfs import make_rootfs
from tests.site import PASSWORD, ROOT, USERNAME, Site, free_port

LANGUAGES = {"en": (1440, 900), "ko": (390, 844)}
# The browser's own complaint about a page that was answered with 422, as a form with errors is.
_ANSWERED = re.compile(r"Failed to load resource: .* 422")


@pytest.fixture(scope="module")
def box(mirror: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small image in the registry: busybox."""
    folder = tmp_path_factory.mktemp("box")
    push_image(
        RegistryServer(mirror.removeprefix("http://"), folder),
        "library/box",
        layers=[make_rootfs(folder / "rootfs")],
        config={"Cmd": ["sh"], "Env": ["PATH=/bin"]},
    )
    return "box"


@pytest.fixture
def language() -> str:
    return "en"


@pytest.fixture(scope="module")
def signed_in(browser: Browser, site: Site) -> Iterator[dict[str, Visitor]]:
    """Somebody in each language; signing in takes longer than most of these tests."""
    opened = {
        language: visitor(browser, site, width=width, height=height, language=language)
        for language, (width, height) in LANGUAGES.items()
    }
    yield {language: who for language, (_, who) in opened.items()}
    for context, _ in opened.values():
        context.close()


@pytest.fixture
def person(signed_in: dict[str, Visitor], language: str, tmp_path: Path) -> Iterator[Visitor]:
    who = signed_in[language]
    yield who
    who.page.screenshot(path=str(tmp_path / "last.png"))
    complaints = [one for one in who.complaints if not _ANSWERED.search(one)]
    who.complaints.clear()
    assert complaints == []


both = pytest.mark.parametrize("language", ["en", "ko"])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder on the person's machine, without a Dockerfile."""
    folder = tmp_path / "harbour"
    folder.mkdir()
    (folder / "data.txt").write_text("tide\n")
    return folder


def new_build(person: Visitor, source: Path | None = None) -> Page:
    page = person.open("/t/team/builds/new/")
    if source is not None:
        page.set_input_files("[data-folder-input]", str(source))
        expect(page.locator("[data-upload-bar].done")).to_be_visible()
    return page


def build(page: Page) -> None:
    page.locator("[data-build-form] [data-build-submit]").first.click()


def bad_lines(page: Page) -> list[str]:
    """Numbers of the editor's marked lines."""
    return page.locator(".editor-lines .bad").all_inner_texts()


def numbers(person: Visitor) -> list[str]:
    """Of the builds there are, newest first."""
    page = person.open("/t/team/builds/")
    return page.locator("tbody tr [href*='/builds/']").all_inner_texts()


@both
def test_a_mistake_in_the_dockerfile(
    person: Visitor, source: Path, box: str, language: str
) -> None:
    before = numbers(person)
    page = new_build(person, source)
    tag, wrong = f"mended-{language}:1", f"FROM {box}\n\nRUNN cat \\\n  data.txt\nCOPY . /\n"
    page.fill("input[name=tag]", tag)
    page.fill("textarea[name=args]", "A=1\nB=한글")
    page.fill("textarea[name=dockerfile]", wrong)
    page.locator("input[name=no_cache]").check(force=True)
    build(page)

    # At its line, before anything was queued
    error = page.locator("#dockerfile_error")
    expect(error).to_contain_text("RUNN")
    expect(error).to_contain_text("3")
    assert bad_lines(page) == ["3", "4"]
    expect(page.locator("textarea[name=dockerfile]")).to_be_focused()

    # Everything typed is still there, the upload too
    expect(page.locator("textarea[name=dockerfile]")).to_have_value(wrong)
    expect(page.locator("textarea[name=args]")).to_have_value("A=1\nB=한글")
    expect(page.locator("input[name=tag]")).to_have_value(tag)
    expect(page.locator("input[name=no_cache]")).to_be_checked()
    expect(page.locator("[data-upload-name]")).to_have_text("harbour.tar")
    expect(page.locator("[data-drop-idle]")).to_be_hidden()
    _fits(page)

    # Mended, it builds from that upload
    page.fill("textarea[name=dockerfile]", wrong.replace("RUNN", "RUN true ||"))
    build(page)
    page.wait_for_url(re.compile(r"/builds/\d+/$"))
    steps = pages.build_ends(page)
    assert steps["COPY . /"] == "built"
    assert len(numbers(person)) == len(before) + 1


def test_a_mistake_in_the_folder_s_own_dockerfile(person: Visitor, source: Path, box: str) -> None:
    before = numbers(person)
    (source / "Dockerfile").write_text(f'FROM {box}\nENV A="open\n')
    page = new_build(person, source)
    page.fill("input[name=tag]", "own:1")
    build(page)
    expect(page.locator("#dockerfile_error")).to_contain_text("2")
    assert bad_lines(page) == ["2"]
    expect(page.locator("textarea[name=dockerfile]")).to_have_value(f'FROM {box}\nENV A="open\n')
    assert len(numbers(person)) == len(before)
    page.go_back()
    # Mended in the folder and chosen again, the folder's own counts.
    (source / "Dockerfile").write_text(f'FROM {box}\nENV A="closed"\n')
    page = new_build(person, source)
    build(page)
    page.wait_for_url(re.compile(r"/builds/\d+/$"))
    assert list(pages.build_ends(page)) == [f"FROM {box}", 'ENV A="closed"']


def test_other_mistakes_of_a_new_build(person: Visitor, source: Path, box: str) -> None:
    """The name, the arguments, the stage: each at its field, and the folder's Dockerfile stays."""
    text = f"FROM {box} AS one\nARG A\n"
    (source / "Dockerfile").write_text(text)
    page = new_build(person, source)
    for field, wrong, right in (
        ("tag", "Not A Name", "fields:1"),
        ("args", "no value", "A=1"),
        ("target", "two", ""),
    ):
        if field == "target":
            page.locator("aside details.more summary").click()
        page.fill(f"[name={field}]", wrong)
        build(page)
        expect(page.locator(f"#id_{field}_error")).to_be_visible()
        expect(page.locator(f"[name={field}]")).to_have_value(wrong)
        expect(page.locator("textarea[name=dockerfile]")).to_have_value(text)
        expect(page.locator("[data-upload-name]")).to_have_text("harbour.tar")
        assert page.locator(".error:visible").count() == 1
        page.fill(f"[name={field}]", right)
    build(page)
    page.wait_for_url(re.compile(r"/builds/\d+/$"))
    assert list(pages.build_ends(page)) == [f"FROM {box} AS one", "ARG A"]


@both
def test_a_step_that_fails(person: Visitor, box: str, language: str) -> None:
    page = new_build(person)
    good = f"FROM {box}\nRUN echo first > /first\n"
    page.fill("input[name=tag]", f"failing-{language}:1")
    page.fill(
        "textarea[name=dockerfile]",
        f"{good}RUN echo seen {language} && \\\n    nosuch --flag\nRUN echo never\n",
    )
    build(page)
    page.wait_for_url(re.compile(r"/builds/\d+/$"))
    steps = pages.build_ends(page, "failed")
    assert list(steps.values())[2:] == ["failed", "waiting"]

    # At its step: unfolded, with its output, its code and its line
    failed = page.locator(".build-step[data-state=failed]")
    expect(failed.locator(".build-output")).to_contain_text(f"seen {language}")
    expect(failed.locator(".build-output")).to_contain_text("nosuch: not found")
    expect(failed.locator(".build-error")).to_contain_text("127")
    expect(failed.locator(".build-source")).to_contain_text("Dockerfile:3")
    # and at its lines of the Dockerfile
    expect(page.locator(".dockerfile li.failed")).to_have_count(2)
    expect(page.locator(".dockerfile li.failed").first).to_contain_text("RUN echo seen")
    _fits(page)
    # A reload shows the same.
    page.reload()
    pages.build_ends(page, "failed")
    expect(page.locator(".build-step[data-state=failed] .build-error")).to_contain_text("127")

    # Mended where it stands, what was built before it is not built again
    page.locator("[data-again] summary").click()
    area = page.locator("[data-again] textarea[name=dockerfile]")
    area.fill(area.input_value().replace("nosuch --flag", "true\nRUNN"))
    page.locator("[data-again] [data-build-submit]").click()
    expect(page.locator("#dockerfile_error")).to_contain_text("RUNN")
    assert bad_lines(page) == ["5"]
    area.fill(area.input_value().replace("\nRUNN", ""))
    address = page.url
    page.locator("[data-again] [data-build-submit]").click()
    page.wait_for_url(lambda url: url != address and re.search(r"/builds/\d+/$", url) is not None)
    assert list(pages.build_ends(page).values())[1:] == ["cached", "built", "built"]


def test_an_image_in_from_that_does_not_exist(person: Visitor) -> None:
    page = new_build(person)
    page.fill("textarea[name=dockerfile]", "FROM nosuch:7\nRUN true\n")
    build(page)
    page.wait_for_url(re.compile(r"/builds/\d+/$"))
    assert list(pages.build_ends(page, "failed").values()) == ["failed", "waiting"]
    error = page.locator(".build-step[data-state=failed] .build-error")
    expect(error).to_contain_text("The registry has no such image or tag.")
    expect(error).to_contain_text("Dockerfile:1")
    expect(page.locator(".dockerfile li.failed")).to_have_count(1)


def test_a_source_without_a_dockerfile(person: Visitor, source: Path) -> None:
    page = new_build(person)
    build(page)
    expect(page.locator("#dockerfile_error")).to_contain_text("Write a Dockerfile, or choose")
    page = new_build(person, source)
    build(page)
    page.wait_for_url(re.compile(r"/builds/\d+/$"))
    pages.build_ends(page, "failed")
    expect(page.locator(".notice-fail, .build-error").first).to_contain_text("Dockerfile")


@both
def test_an_image_that_is_not_here(person: Visitor, box: str, language: str) -> None:
    """At its field, with the way on: pull it, and run it."""
    page = person.open("/t/team/containers/new/")
    page.fill("input[name=image]", f"nosuch-{language}")
    page.fill("input[name=name]", f"kept-{language}")
    page.locator("details.more summary").first.click()
    page.fill("textarea[name=env]", "A=1")
    page.fill("input[name=command]", 'sh -c "sleep 60"')
    page.locator("input[name=container_port]").first.fill("80")
    page.locator("[data-run-form] button.button-primary").click()
    error = page.locator("#id_image_error")
    expect(error).to_contain_text(f"nosuch-{language}")
    for field, value in (
        ("image", f"nosuch-{language}"),
        ("name", f"kept-{language}"),
        ("env", "A=1"),
        ("command", 'sh -c "sleep 60"'),
        ("container_port", "80"),
    ):
        expect(page.locator(f"[name={field}]").first).to_have_value(value)
    _fits(page)

    page.locator(f"a[href*='/images/pull/?name=nosuch-{language}']").click()
    expect(page.locator("input[name=name]")).to_have_value(f"nosuch-{language}")
    page.locator("main form button.button-primary").click()
    pull = page.locator(".pull").first
    words = {"en": "The registry has no such image or tag.", "ko": "레지스트리에"}
    expect(pull).to_contain_text(words[language])
    # A name that cannot be
    page.fill("input[name=name]", "http://nosuch")
    page.locator("main form button.button-primary").click()
    expect(page.locator("#id_name_error")).to_be_visible()
    expect(page.locator("input[name=name]")).to_have_value("http://nosuch")
    # and the right one
    page.fill("input[name=name]", box)
    page.locator("main form button.button-primary").click()
    expect(page.locator(".pull a[href*='/containers/new/']").first).to_be_visible()


def test_a_name_and_a_port_that_are_taken(person: Visitor, box: str) -> None:
    _have(person, box)
    page = _run_form(person, box, "taken")
    page.locator("[data-run-form] button.button-primary").click()
    page.wait_for_url(re.compile(r"/containers/taken/"))

    # The name: at its field, everything kept
    page = _run_form(person, box, "taken")
    page.locator("label:has(input[name=mode][value=attached])").click()
    page.locator("[data-run-form] button.button-primary").click()
    expect(page.locator("#id_name_error")).to_contain_text("The name “taken” is taken.")
    expect(page.locator("input[name=image]")).to_have_value(box)
    expect(page.locator("input[name=command]")).to_have_value("sleep 600")
    expect(page.locator("input[name=mode][value=attached]")).to_be_checked()

    # The port: on the container's page, which has come to be and can be started once it is free
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        page.fill("input[name=name]", "waiting")
        page.locator("label:has(input[name=mode][value=detached])").click()
        page.locator("input[name=host_port]").first.fill(str(port))
        page.locator("input[name=container_port]").first.fill("80")
        page.locator("[data-run-form] button.button-primary").click()
        page.wait_for_url(re.compile(r"/containers/waiting/"))
        problem = page.locator("#container-problem .notice-fail")
        expect(problem).to_contain_text(f"Port {port}/tcp on 0.0.0.0 is taken")
        expect(problem).to_contain_text("Publish on another port")
        assert pages.state_of(page) == "fail"
    pages.start(page)
    expect(problem).to_have_count(0)
    expect(page.locator(f"#container-head a[href='http://127.0.0.1:{port}/']")).to_be_visible()

    # Renaming to a name that is taken
    page.locator("nav.tabs a[href$='/waiting/settings/']").click()
    page.fill("input[name=name]", "taken")
    page.locator("form:has(input[name=name]) button").first.click()
    expect(page.locator("#id_name_error")).to_contain_text("The name “taken” is taken.")


@both
def test_what_the_image_does_not_have(person: Visitor, box: str, language: str) -> None:
    _have(person, box)
    korean = language == "ko"
    for field, value, english, words in (
        ("user", "ghost", "The image has no user “ghost”.", "“ghost” 사용자가 없습니다"),
        ("command", "nosuch -x", "“nosuch” is not in the image.", "“nosuch” 명령이"),
        ("command", "/etc/passwd", "“/etc/passwd” cannot be executed.", "실행할 수 없습니다"),
        ("working_dir", "/etc/passwd", "is no folder in the image", "폴더가 아닙니다"),
    ):
        name = f"{field}-{len(value)}-{language}"
        page = _run_form(person, box, name)
        page.fill(f"input[name={field}]", value)
        page.locator("[data-run-form] button.button-primary").click()
        page.wait_for_url(re.compile(rf"/containers/{name}/"))
        problem = page.locator("#container-problem .notice-fail")
        expect(problem).to_contain_text(words if korean else english)
        _fits(page)
    page = _run_form(person, box, f"relative-{language}")
    page.fill("input[name=working_dir]", "relative/path")
    page.locator("[data-run-form] button.button-primary").click()
    words = "/로 시작" if korean else "beginning with /"
    expect(page.locator("#id_working_dir_error")).to_contain_text(words)


def test_a_terminal_s_command_that_is_no_command(person: Visitor, box: str) -> None:
    _have(person, box)
    page = _run_form(person, box, "shells")
    page.locator("[data-run-form] button.button-primary").click()
    page.wait_for_url(re.compile(r"/containers/shells/"))
    page.locator("nav.tabs a[href$='/shells/terminal/']").click()
    form = page.locator("form:has(input[name=kind][value=exec])")
    form.locator("input[name=command]").fill('sh -c "open')
    form.locator("button.button-primary").click()
    expect(form.locator(".error")).to_contain_text("A quotation mark is not closed.")
    expect(form.locator("input[name=command]")).to_have_value('sh -c "open')
    page.wait_for_timeout(400)  # what is live on the page has looked once more
    page.reload()
    page.wait_for_url(re.compile(r"/shells/terminal"))


@both
def test_a_wrong_password(browser: Browser, site: Site, language: str) -> None:
    context = browser.new_context(locale="ko-KR" if language == "ko" else "en-GB")
    page = context.new_page()
    page.goto(f"{site.url}/t/team/builds/")
    page.fill("input[name=username]", USERNAME)
    page.fill("input[name=password]", "not the password")
    page.press("input[name=password]", "Enter")
    words = {"en": "User name and password do not fit together.", "ko": "맞지 않습니다"}
    expect(page.locator("[role=alert]")).to_contain_text(words[language])
    expect(page.locator("input[name=username]")).to_have_value(USERNAME)
    assert page.url.startswith(f"{site.url}/sign-in/")
    context.close()


@pytest.fixture
def fresh(site: Site) -> Iterator[Site]:
    """A site nobody is in, and nothing but its web process: it takes no more to be set up."""
    home = Path(tempfile.mkdtemp(prefix="qs-"))
    port = free_port()
    environment = {
        **site.environment,
        "QUAYSIDE_HOME": str(home),
        "QUAYSIDE_PORT": str(port),
        "DJANGO_SETTINGS_MODULE": "console.settings",
    }
    made = Site(home, port, environment)
    python, everything = str(ROOT / ".venv/bin/python"), {**os.environ, **environment}
    try:
        subprocess.run([python, "-m", "console.home"], cwd=ROOT, env=everything, check=True)
        shutil.copytree(site.home / "static", home / "static", dirs_exist_ok=True)
        made.manage("migrate", "--verbosity", "0")
        web = os.environ.get("QUAYSIDE_WEB_USER", "quayside")
        shutil.chown(home / "db/quayside.sqlite3", web, web)
        with subprocess.Popen([python, "-m", "console.serve"], cwd=ROOT, env=everything) as server:
            try:
                pages.eventually(lambda: _answers(f"{made.url}/healthz"), 30, "the site answers")
                yield made
            finally:
                server.kill()  # its processes go with it
    finally:
        shutil.rmtree(home)


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=2):
            return True
    except OSError:
        return False


def _code(site: Site) -> str:
    """A new set-up code, as a start makes one."""
    said = site.manage("shell", source="from console.setup_code import *; print(code_make())")
    found = re.search(r"[A-Z0-9]{4}-[A-Z0-9]{4}-[A-Z0-9]{4}", said)
    assert found, said
    return found[0]


def test_a_wrong_set_up_code(browser: Browser, fresh: Site) -> None:
    """Five tries; a typing mistake elsewhere costs none."""
    code = _code(fresh)
    page = browser.new_page()
    page.goto(fresh.url)
    assert page.url == f"{fresh.url}/setup/"

    def send(code: str, password: str = PASSWORD) -> None:
        page.fill("input[name=code]", code)
        page.fill("input[name=username]", "ann")
        page.fill("input[name=password]", password)
        page.fill("input[name=team]", "항구")
        page.locator("form button.button-primary").click()

    send(code, "short")
    expect(page.locator("#id_password_error")).to_be_visible()
    expect(page.locator("input[name=code]")).to_have_value(code)
    error = page.locator("#id_code_error")
    for left in (4, 3, 2, 1):
        send("AAAA-BBBB-CCCC")
        expect(error).to_contain_text(f"Tries left: {left}.")
        expect(page.locator("input[name=username]")).to_have_value("ann")
        expect(page.locator("input[name=password]")).to_have_value(PASSWORD)
        expect(page.locator("input[name=team]")).to_have_value("항구")
    for late in ("AAAA-BBBB-CCCC", code):
        send(late)
        expect(error).to_contain_text("This code cannot be used any more.")

    # The next start's code, however it is typed
    send(_code(fresh).lower().replace("-", " "))
    page.wait_for_url(re.compile(r"/t/[^/]+/$"))
    page.close()


def _have(person: Visitor, image: str) -> None:
    page = person.open(f"/t/team/images/pull/?name={image}")
    page.locator("main form button.button-primary").click()
    expect(page.locator(".pull a[href*='/containers/new/']").first).to_be_visible()


def _run_form(person: Visitor, image: str, name: str) -> Page:
    page = person.open(f"/t/team/containers/new/?image={image}")
    page.fill("input[name=name]", name)
    page.locator("details.more summary").first.click()
    page.fill("input[name=command]", "sleep 600")
    return page


def _fits(page: Page) -> None:
    """Nothing sticks out to the side, errors included."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
