"""Execs over the Docker API: order, sizes, codes, input, and what inspect says of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.box_site import Box, BoxSite
from tests.engine_api import EngineApi, frames, texts

REFUSED = "OCI runtime exec failed: exec failed: unable to start container process: "


@pytest.fixture(scope="module")
def api(running_box_site: BoxSite) -> EngineApi:
    return EngineApi.of(running_box_site)


@pytest.fixture(scope="module")
def box(running_box_site: BoxSite) -> Iterator[Box]:
    """One container for all: execs come and go."""
    yield running_box_site.run("trap 'exit 0' TERM; while :; do sleep 1; done", env=("OWN=1",))
    running_box_site.remove_all()


def start(id: str, **body: object) -> tuple[str, dict[str, object]]:
    return f"/v1.47/exec/{id}/start", {"Detach": False, "Tty": False, **body}


def test_output_and_code(api: EngineApi, box: Box) -> None:
    code, data = api.run_exec(box.uid, "sh", "-c", "seq 1 20000; echo oops >&2; exit 7")
    assert code == 7
    assert texts(data, 1) == b"".join(b"%d\n" % n for n in range(1, 20001))
    assert texts(data, 2) == b"oops\n"


def test_user_environment_and_folder(api: EngineApi, box: Box) -> None:
    code, data = api.run_exec(
        box.name,
        "sh",
        "-c",
        "echo $(id -un) $OWN $MORE $PWD",
        User="app",
        Env=["MORE=2"],
        WorkingDir="/tmp",
    )
    assert (code, texts(data)) == (0, b"app 1 2 /tmp\n")


def test_inspect_before_while_and_after(api: EngineApi, box: Box) -> None:
    id = api.exec(box.uid, "cat", AttachStdin=True, User="root")
    path = f"/v1.47/exec/{id}/json"
    assert api.get(path).json == {
        "ID": id,
        "Running": False,
        "ExitCode": None,
        "ProcessConfig": {
            "tty": False,
            "entrypoint": "cat",
            "arguments": [],
            "privileged": False,
            "user": "root",
        },
        "OpenStdin": True,
        "OpenStderr": True,
        "OpenStdout": True,
        "CanRemove": False,
        "ContainerID": box.uid,
        "DetachKeys": "",
        "Pid": 0,
    }
    with closing(api.hijack(*start(id))) as stream:
        assert stream.status == 101
        stream.send(b"x" * 100_000)
        stream.until(b"x")
        running = api.get(path).json
        assert (running["Running"], running["ExitCode"]) == (True, None)
        assert running["Pid"] > 1
        assert id in api.get(f"/v1.47/containers/{box.uid}/json").json["ExecIDs"]
        assert api.post(*start(id)).status == 409
        stream.half_close()
        assert len(texts(stream.rest())) == 100_000
    ended = api.get(path).json
    assert (ended["Running"], ended["ExitCode"], ended["CanRemove"]) == (False, 0, True)
    again = api.post(*start(id))
    assert (again.status, again.message) == (409, f"Error: Exec command {id} has already run")


def test_a_terminal_has_its_size_from_the_first_look(api: EngineApi, box: Box) -> None:
    asked = {"Tty": True, "AttachStdin": True}
    created = api.exec(box.uid, "stty", "size", ConsoleSize=[30, 100], **asked)
    started = api.exec(box.uid, "stty", "size", **asked)
    resized = api.exec(box.uid, "stty", "size", **asked)
    assert api.post(f"/v1.47/exec/{resized}/resize?h=50&w=160").status == 200
    for id, more, wanted in (
        (created, {}, b"30 100\r\n"),
        (started, {"ConsoleSize": [40, 120]}, b"40 120\r\n"),
        (resized, {}, b"50 160\r\n"),
    ):
        with closing(api.hijack(*start(id, Tty=True, **more))) as stream:
            assert stream.rest() == wanted


def test_a_resize_while_it_runs(api: EngineApi, box: Box) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do read x; done"
    id = api.exec(box.uid, "sh", "-c", script, Tty=True, AttachStdin=True)
    with closing(api.hijack(*start(id, Tty=True))) as stream:
        stream.until(b"ready")
        assert api.post(f"/v1.47/exec/{id}/resize?h=21&w=77").status == 200
        stream.send(b"\n")
        stream.until(b"21 77")
        stream.send(b"\x10\x11")  # detached: it goes on
        stream.rest()
    assert api.get(f"/v1.47/exec/{id}/json").json["Running"] is True


@pytest.mark.parametrize(
    ("command", "more", "code", "text"),
    [
        (
            "nosuch",
            {},
            126,
            f'{REFUSED}exec: "nosuch": executable file not found in $PATH: unknown\r\n',
        ),
        (
            "/etc/passwd",
            {},
            126,
            f'{REFUSED}exec: "/etc/passwd": permission denied: unknown\r\n',
        ),
        (
            "true",
            {"User": "nosuch"},
            126,
            "unable to find user nosuch: no matching entries in passwd file\r\n",
        ),
    ],
)
def test_what_cannot_run_says_so_in_mobys_words(
    api: EngineApi, box: Box, command: str, more: dict[str, object], code: int, text: str
) -> None:
    found, data = api.run_exec(box.uid, command, **more)
    assert frames(data) == [(1, text.encode())]
    assert found == code


def test_detached(api: EngineApi, box: Box) -> None:
    id = api.exec(box.uid, "sh", "-c", "sleep 0.2; exit 5")
    answer = api.post(*start(id, Detach=True))
    assert (answer.status, answer.body) == (200, b"")
    while api.get(f"/v1.47/exec/{id}/json").json["Running"]:
        time.sleep(0.02)
    assert api.get(f"/v1.47/exec/{id}/json").json["ExitCode"] == 5
    missing = api.post(*start(api.exec(box.uid, "nosuch"), Detach=True))
    assert missing.status == 400
    assert "executable file not found in $PATH" in missing.message


def test_it_goes_on_when_its_client_hangs_up(api: EngineApi, box: Box) -> None:
    id = api.exec(box.uid, "sh", "-c", "echo up; sleep 0.3; exit 9")
    with closing(api.hijack(*start(id))) as stream:
        stream.until(b"up\n")
    while api.get(f"/v1.47/exec/{id}/json").json["Running"]:
        time.sleep(0.02)
    assert api.get(f"/v1.47/exec/{id}/json").json["ExitCode"] == 9


def test_nothing_is_left_on_disk(running_box_site: BoxSite, api: EngineApi, box: Box) -> None:
    assert api.run_exec(box.uid, "true")[0] == 0
    folder = running_box_site.site.home / f"containers/{box.uid}/exec"
    deadline = time.monotonic() + 10
    # Those that run on in other tests stay.
    while len(list(folder.iterdir())) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(list(folder.iterdir())) <= 1


def test_events_in_dockers_words(running_box_site: BoxSite, api: EngineApi, box: Box) -> None:
    api.run_exec(box.uid, "sh", "-c", "exit 3")
    actions = running_box_site.call(
        """
        events = Event.objects.filter(actor_id=uid).order_by("-pk")
        deadline = time.monotonic() + 10
        while events[0].action != "exec_die" and time.monotonic() < deadline:
            time.sleep(0.02)
        found = events[:3]
        result = [(event.action, event.attributes.get("exitCode")) for event in found]
        """,
        uid=box.uid,
    )
    assert actions == [
        ["exec_die", "3"],
        ["exec_start: sh -c exit 3", None],
        ["exec_create: sh -c exit 3", None],
    ]


def test_refusals(running_box_site: BoxSite, api: EngineApi, box: Box) -> None:
    path = f"/v1.47/containers/{box.uid}/exec"
    empty = api.post(path, {"Cmd": []})
    assert (empty.status, empty.message) == (400, "No exec command specified")
    assert api.post(path, {"Cmd": "true"}).status == 400
    assert api.post(path, {"Cmd": ["true"], "DetachKeys": "ctrl-9"}).status == 400
    privileged = api.post(path, {"Cmd": ["true"], "Privileged": True})
    assert privileged.status == 403
    assert api.post("/v1.47/containers/nosuch/exec", {"Cmd": ["true"]}).status == 404
    unknown = api.get("/v1.47/exec/0123/json")
    assert (unknown.status, unknown.message) == (404, "No such exec instance: 0123")
    stopped = running_box_site.command("true", start=False)
    refused = api.post(f"/v1.47/containers/{stopped.name}/exec", {"Cmd": ["true"]})
    assert (refused.status, refused.message) == (
        409,
        f"Container {stopped.uid} is not running",
    )
    id = api.exec(box.uid, "true")
    running_box_site.operate(box, "stop", grace=0)
    with closing(api.hijack(*start(id))) as stream:
        data = stream.rest()
    assert frames(data) == [(1, f"Container {box.uid} is not running\r\n".encode())]
