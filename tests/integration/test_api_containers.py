"""Containers over the Docker API: what each call does and says, in dockerd 20.10's words."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.box_site import BoxSite
from tests.engine_api import SECONDS, Answer, EngineApi

SLEEP = ["sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done"]


@pytest.fixture(scope="module")
def engine(running_box_site: BoxSite) -> EngineApi:
    return EngineApi.of(running_box_site)


@pytest.fixture
def api(engine: EngineApi, running_box_site: BoxSite) -> Iterator[EngineApi]:
    yield engine
    running_box_site.remove_all()


def create(api: EngineApi, *command: str, name: str = "", **more: Any) -> str:
    body = {"Image": "box", "Cmd": list(command) or SLEEP, **more}
    answer = api.post(f"/v1.47/containers/create?name={name}", body)
    assert answer.status == 201, answer
    return str(answer.json["Id"])


def run(api: EngineApi, *command: str, name: str = "", **more: Any) -> str:
    id = create(api, *command, name=name, **more)
    answer = api.post(f"/v1.47/containers/{id}/start")
    assert answer.status == 204, answer
    return id


def inspect(api: EngineApi, name: str) -> Any:
    return api.get(f"/v1.47/containers/{name}/json").json


def listed(api: EngineApi, **filters: list[str]) -> list[str]:
    found = api.get(f"/v1.47/containers/json?all=1&filters={quote(json.dumps(filters))}")
    assert found.status == 200, found
    return [one["Names"][0][1:] for one in found.json]


def until(check: Any, seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_the_life_of_one(api: EngineApi) -> None:
    id = create(api, name="one", Env=["A=1", "BARE"], Labels={"a": "b"}, Tty=True)
    made = inspect(api, "one")
    assert made["Id"] == id
    assert (made["State"]["Status"], made["State"]["StartedAt"][:4]) == ("created", "0001")
    assert made["Config"]["Env"] == ["A=1", "BARE", "PATH=/bin:/usr/bin"]
    assert api.post(f"/containers/{id[:4]}/start").status == 204
    assert api.post("/containers/one/start").status == 304
    running = inspect(api, "%2Fone")
    assert running["State"]["Running"] is True
    assert running["State"]["Pid"] > 1
    assert running["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    (row,) = api.get("/containers/json").json
    assert (row["State"], row["Names"], row["Image"]) == ("running", ["/one"], "box")
    assert row["Status"].startswith(("Up Less", "Up 1 s", "Up 2 s"))
    assert api.post("/containers/one/stop?t=20").status == 204
    assert api.post("/containers/one/stop").status == 304
    ended = inspect(api, "one")["State"]
    assert (ended["Status"], ended["ExitCode"], ended["Pid"]) == ("exited", 5, 0)
    assert api.get("/containers/json").json == []
    assert api.call("DELETE", "/containers/one").status == 204
    assert api.get("/containers/one/json").message == "No such container: one"


def test_words_and_codes_of_refusals(api: EngineApi) -> None:
    id = run(api, name="one")

    def refused(method: str, path: str, status: int, message: str, body: object = None) -> None:
        answer = api.call(method, path, body)
        assert (answer.status, answer.message) == (status, message)

    taken = (
        f'Conflict. The container name "/one" is already in use by container "{id}". You have to '
        "remove (or rename) that container to be able to reuse that name."
    )
    true = {"Image": "box", "Cmd": ["true"]}
    new = "/containers/create"
    only = "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    for method, path, status, message, body in (
        ("POST", f"{new}?name=one", 409, taken, true),
        ("POST", f"{new}?name=a/b", 400, f"Invalid container name (a/b), {only}", true),
        ("POST", new, 404, "No such image: nope:latest", {**true, "Image": "nope"}),
        ("POST", new, 400, "No command specified", {"Image": "box"}),
        ("POST", new, 400, "Config cannot be empty in order to create a container", {}),
        ("POST", new, 400, "invalid environment variable: =x", {**true, "Env": ["=x"]}),
        ("POST", new, 400, "Invalid signal: foo", {**true, "StopSignal": "foo"}),
        (
            "POST",
            new,
            400,
            "the working directory 'rel' is invalid, it needs to be an absolute path",
            {**true, "WorkingDir": "rel"},
        ),
        (
            "POST",
            new,
            400,
            "Minimum memory limit allowed is 6MB",
            {**true, "HostConfig": {"Memory": 1000}},
        ),
        (
            "POST",
            new,
            501,
            "HostConfig.StorageOpt is not supported",
            {**true, "HostConfig": {"StorageOpt": {"size": "1G"}}},
        ),
        (
            "DELETE",
            "/containers/one",
            409,
            (
                f"You cannot remove a running container {id}. Stop the container before "
                "attempting removal or force remove"
            ),
            None,
        ),
        ("POST", "/containers/nope/start", 404, "No such container: nope", None),
        ("POST", "/containers/one/kill?signal=FOO", 400, "Invalid signal: FOO", None),
        ("POST", "/containers/one/unpause", 409, f"Container {id} is not paused", None),
        (
            "POST",
            "/containers/one/rename?name=one",
            400,
            "Renaming a container with the same name as its current name",
            None,
        ),
        ("POST", "/containers/one/wait?condition=x", 400, 'invalid condition: "x"', None),
        (
            "GET",
            "/containers/json?filters=%7B%22bar%22:%5B%22x%22%5D%7D",
            400,
            "Invalid filter 'bar'",
            None,
        ),
        (
            "GET",
            "/containers/json?filters=%7B%22status%22:%5B%22x%22%5D%7D",
            400,
            "Invalid filter 'status=x'",
            None,
        ),
    ):
        refused(method, path, status, message, body)
    api.post("/containers/one/kill")
    until(lambda: inspect(api, "one")["State"]["Status"] == "exited")
    stopped = f"Container {id} is not running"
    refused("POST", "/containers/one/kill", 409, f"Cannot kill container: one: {stopped}")
    refused("POST", "/containers/one/pause", 409, stopped)
    refused("GET", "/containers/one/top", 409, stopped)


def test_a_command_that_is_not_there(api: EngineApi) -> None:
    """docker run takes 127 from these words, and waits until a --rm one is gone."""
    id = create(api, "nosuch", HostConfig={"AutoRemove": True})
    answer = api.post(f"/containers/{id}/start")
    assert answer.status == 400
    assert answer.message.endswith('exec: "nosuch": executable file not found in $PATH: unknown')
    assert api.get(f"/containers/{id}/json").status == 404
    kept = create(api, "nosuch")
    api.post(f"/containers/{kept}/start")
    state = inspect(api, kept)["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert "executable file not found" in state["Error"]


def waiting(api: EngineApi, id: str, condition: str) -> tuple[threading.Thread, list[Answer]]:
    """Asked, and its headers are there: what happens from now on is not missed."""
    found: list[Answer] = []

    begun = threading.Event()

    def ask() -> None:
        with api.begun("POST", f"/containers/{id}/wait?condition={condition}") as answer:
            begun.set()
            found.append(Answer(answer.status, dict(answer.getheaders()), answer.read()))

    thread = threading.Thread(target=ask)
    thread.start()
    assert begun.wait(SECONDS)
    return thread, found


@pytest.mark.parametrize("condition", ["next-exit", "removed"])
def test_waiting_begins_before_the_start(api: EngineApi, condition: str) -> None:
    id = create(api, "sh", "-c", "exit 3", HostConfig={"AutoRemove": True})
    thread, found = waiting(api, id, condition)
    assert api.post(f"/containers/{id}/start").status == 204
    thread.join(10)
    assert found[0].json == {"StatusCode": 3}
    until(lambda: api.get(f"/containers/{id}/json").status == 404)


def test_waiting_for_one_that_does_not_run_is_over_at_once(api: EngineApi) -> None:
    id = run(api, "sh", "-c", "exit 4")
    assert api.post(f"/containers/{id}/wait").json == {"StatusCode": 4}
    assert api.post(f"/containers/{id}/wait?condition=not-running").json == {"StatusCode": 4}
    thread, found = waiting(api, id, "next-exit")
    api.post(f"/containers/{id}/start")
    thread.join(10)
    assert found[0].json == {"StatusCode": 4}


def test_a_forced_removal_ends_every_wait(api: EngineApi) -> None:
    id = run(api)
    waits = [waiting(api, id, condition) for condition in ("not-running", "next-exit", "removed")]
    assert api.call("DELETE", f"/containers/{id}?force=1").status == 204
    for thread, found in waits:
        thread.join(10)
        assert found[0].json == {"StatusCode": 137}


def test_filters_of_the_list(api: EngineApi) -> None:
    first = create(api, "true", name="first", Labels={"tier": "web", "env": "a"})
    run(api, name="second", Labels={"tier": "web"}, ExposedPorts={"81/tcp": {}})
    create(api, "true", name="third", HostConfig={"Binds": ["data:/data"], "NetworkMode": "none"})
    assert listed(api) == ["third", "second", "first"]
    for filters, names in (
        ({"id": [first[:10]]}, ["first"]),
        ({"name": ["ir"]}, ["third", "first"]),
        ({"name": ["^/first$"]}, ["first"]),
        ({"name": ["^first$"]}, ["first"]),
        ({"label": ["tier=web"]}, ["second", "first"]),
        ({"label": ["tier=web", "env"]}, ["first"]),
        ({"status": ["created"]}, ["third", "first"]),
        ({"status": ["running", "exited"]}, ["second"]),
        ({"before": ["second"]}, ["first"]),
        ({"since": ["second"]}, ["third"]),
        ({"ancestor": ["box"]}, ["third", "second", "first"]),
        ({"ancestor": ["nothing"]}, []),
        ({"volume": ["data"]}, ["third"]),
        ({"volume": ["/data"]}, ["third"]),
        ({"network": ["bridge"]}, ["second", "first"]),
        ({"network": ["none"]}, ["third"]),
        ({"expose": ["80-90/tcp"]}, ["second"]),
        ({"publish": ["81"]}, []),
        ({"health": ["none"]}, ["third", "second", "first"]),
        ({"is-task": ["true"]}, []),
        ({"exited": ["0"]}, []),
    ):
        assert listed(api, **filters) == names, filters
    last = api.get("/containers/json?limit=1&size=1").json
    assert [one["Names"] for one in last] == [["/third"]]
    assert last[0]["Mounts"][0]["Destination"] == "/data"
    assert "SizeRootFs" in last[0]
    assert last[0]["HostConfig"] == {"NetworkMode": "none"}


def test_pause_rename_update(api: EngineApi) -> None:
    id = run(api, name="one")
    assert api.post("/containers/one/pause").status == 204
    assert api.post("/containers/one/pause").message == f"Container {id} is already paused"
    paused = "cannot start a paused container, try unpause instead"
    assert api.post("/containers/one/start").message == paused
    assert api.get("/containers/json").json[0]["Status"].endswith("(Paused)")
    assert api.post("/containers/one/unpause").status == 204
    assert api.post("/containers/one/rename?name=two").status == 204
    limits = {"Memory": 32 << 20, "MemorySwap": 64 << 20, "RestartPolicy": {"Name": "always"}}
    assert api.post("/containers/two/update", limits).json == {"Warnings": []}
    found = inspect(api, "two")["HostConfig"]
    assert (found["Memory"], found["RestartPolicy"]["Name"]) == (32 << 20, "always")
    assert api.post("/containers/two/restart?t=0").status == 204
    assert inspect(api, "two")["State"]["Running"]


def test_changes_top_and_stats(api: EngineApi) -> None:
    script = "mkdir /x; echo a >/x/y; rm /etc/passwd; echo >>/etc/group; exec sleep 100"
    run(api, "sh", "-c", script, name="one")
    until(lambda: "sleep" in str(api.get("/containers/one/top").json["Processes"]))
    changes = {one["Path"]: one["Kind"] for one in api.get("/containers/one/changes").json}
    assert changes == {"/etc": 0, "/etc/group": 0, "/etc/passwd": 2, "/x": 1, "/x/y": 1}
    top = api.get("/containers/one/top?ps_args=-o%20pid,comm").json
    assert top["Titles"] == ["PID", "COMMAND"]
    assert [process[1] for process in top["Processes"]] == ["sleep"]
    now = api.get("/containers/one/stats?stream=0&one-shot=1").json
    assert now["name"] == "/one"
    assert now["pids_stats"]["current"] == 1
    assert now["memory_stats"]["usage"] > 0
    assert now["preread"].startswith("0001")
    lines = api.stream_lines("/containers/one/stats")
    first, second = json.loads(next(lines)), json.loads(next(lines))
    lines.close()
    assert second["precpu_stats"] == first["cpu_stats"]
    assert second["networks"]["eth0"]["rx_bytes"] >= 0


def test_prune_leaves_what_runs_and_what_is_not_meant(api: EngineApi) -> None:
    gone = create(api, "true", Labels={"a": "1"})
    create(api, "true", name="kept", Labels={"a": "1", "keep": ""})
    run(api, name="runs", Labels={"a": "1"})
    filters = quote(json.dumps({"label": ["a=1"], "label!": ["keep"]}))
    answer = api.post(f"/containers/prune?filters={filters}")
    assert answer.json["ContainersDeleted"] == [gone]
    assert listed(api) == ["runs", "kept"]


def test_info_counts(api: EngineApi) -> None:
    run(api, name="one")
    create(api, "true")
    found = api.get("/info").json
    counts = [found[f"Containers{kind}"] for kind in ("", "Running", "Paused", "Stopped")]
    assert counts == [2, 1, 0, 1]
    assert found["Images"] == 1
    assert found["Swarm"]["LocalNodeState"] == "inactive"
