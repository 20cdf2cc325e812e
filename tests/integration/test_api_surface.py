"""Every endpoint and every property the Docker Engine API knows (tests.docker_api): done and shown
by inspect, or refused with a sentence. Nothing is taken and left out."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache

import pytest

from engine.api.server import TABLES
from tests import docker_api
from tests.box_site import BoxSite
from tests.docker_wishes import CREATED, JSON, NO_MATTER, REFUSED
from tests.engine_api import Answer, EngineApi
from tests.site import ROOT


@pytest.fixture(scope="module")
def api(running_box_site: BoxSite) -> Iterator[EngineApi]:
    api = EngineApi.of(running_box_site)
    wide = {"Name": "wide", "IPAM": {"Config": [{"Subnet": "10.97.8.0/24"}]}}
    assert api.post("/networks/create", wide).status == 201
    yield api
    running_box_site.remove_all()
    for name in ("kept", "more"):
        api.call("DELETE", f"/volumes/{name}?force=1")
    assert api.call("DELETE", "/networks/wide").status == 204


def leaves(value: object, path: str = "", *, known: Mapping[str, str]) -> Iterator[str]:
    """The paths of what is set, as docker_api.properties has them."""
    if isinstance(value, list):
        for one in value:
            yield from leaves(one, f"{path}[]", known=known)
    elif isinstance(value, dict) and (value or path == ""):
        for key, inner in value.items():
            named = f"{path}.{key}" if path else key
            if any(one.startswith(f"{path}{{}}") for one in known):
                named = f"{path}{{}}"
            yield from leaves(inner, named, known=known)
    elif value is not None or path in known:
        yield path


def missing(asked: object, shown: object, path: str = "") -> list[str]:
    """What of `asked` is not in `shown`."""
    if isinstance(asked, dict):
        if not isinstance(shown, dict):
            return [path]
        return [
            one
            for key, inner in asked.items()
            if inner is not None
            for one in missing(inner, shown.get(key), f"{path}.{key}")
        ]
    if isinstance(asked, list) and isinstance(shown, list) and len(asked) <= len(shown):
        return [one for a, b in zip(asked, shown, strict=False) for one in missing(a, b, path)]
    return [] if asked == shown else [f"{path}: {asked!r} became {shown!r}"]


def refused(answer: Answer, word: str) -> None:
    assert 400 <= answer.status <= 501, answer
    assert word.lower() in answer.message.lower(), answer
    assert answer.message != "page not found"


def test_every_endpoint_is_answered(api: EngineApi) -> None:
    """By what it does, or by a sentence: never by `page not found`."""
    for endpoint in docker_api.endpoints():
        method, path = endpoint.split(" ")
        path = re.sub(r"\{\w+\}", "nosuch", path)
        if endpoint.endswith("/distribution/{name}/json"):
            path = path.replace("nosuch", "127.0.0.1:1/nosuch")
        if endpoint == "GET /events":
            path += "?until=1"
        if endpoint.endswith("/prune"):
            path += '?filters={"label":["nosuch"]}'
        answer = api.call(method, path)
        if answer.status >= 400 and method != "HEAD":
            assert answer.status != 405, endpoint
            assert answer.message != "page not found", endpoint
            assert len(answer.message) > 10, endpoint
    for path in ("/nosuch", "/v1.47/nosuch/x", "/images"):
        answer = api.get(path)
        assert (answer.status, answer.message) == (404, "page not found"), path
    assert api.call("PUT", "/containers/json").status == 405


@pytest.mark.parametrize("asked", CREATED, ids=lambda one: " ".join(one)[:40])
def test_create_does_what_it_shows(api: EngineApi, asked: JSON) -> None:
    answer = api.post("/v1.47/containers/create", {"Image": "box", "Cmd": ["x"], **asked})
    assert answer.status == 201, answer
    shown = api.get(f"/v1.47/containers/{answer.json['Id']}/json").json
    outside = ("HostConfig", "NetworkingConfig")
    config = {key: value for key, value in asked.items() if key not in outside}
    assert not missing(config, shown["Config"])
    assert not missing(asked.get("HostConfig", {}), shown["HostConfig"])
    networks = asked.get("NetworkingConfig", {}).get("EndpointsConfig", {})
    assert not missing(networks, shown["NetworkSettings"]["Networks"])


@pytest.mark.parametrize(("asked", "word"), REFUSED, ids=str)
def test_create_refuses(api: EngineApi, asked: JSON, word: str) -> None:
    refused(api.post("/v1.47/containers/create", {"Image": "box", "Cmd": ["x"], **asked}), word)


def test_nothing_of_create_is_left_out() -> None:
    known = docker_api.properties("ContainerCreate")
    tried = {
        path
        for asked in (*CREATED, *(one for one, _ in REFUSED))
        for path in leaves(asked, known=known)
    }
    assert sorted(set(known) - tried - set(NO_MATTER)) == []
    assert not set(NO_MATTER) & tried - {"HostConfig.Mounts[].Consistency"}


def test_no_matter(api: EngineApi) -> None:
    """What an inspect says of an endpoint is no wish."""
    said = {
        "EndpointID": "x",
        "Gateway": "10.0.0.1",
        "IPAddress": "10.0.0.9",
        "IPPrefixLen": 8,
        "NetworkID": "y",
        "DNSNames": ["z"],
        "GlobalIPv6Address": "",
        "IPv6Gateway": "",
    }
    body = {"Image": "box", "Cmd": ["x"], "ArgsEscaped": True}
    body["NetworkingConfig"] = {"EndpointsConfig": {"bridge": said}}
    made = api.post("/v1.47/containers/create", body)
    assert made.status == 201, made
    shown = api.get(f"/containers/{made.json['Id']}/json").json["NetworkSettings"]["Networks"]
    assert shown["bridge"]["IPAddress"] != "10.0.0.9"


def test_capitals_do_not_matter(api: EngineApi) -> None:
    """As in Go; docker-py writes detachKeys."""
    made = api.post("/v1.47/containers/create", {"image": "box", "cmd": ["x"], "hOSTNAME": "low"})
    assert made.status == 201, made
    assert api.get(f"/containers/{made.json['Id']}/json").json["Config"]["Hostname"] == "low"


def test_update(api: EngineApi) -> None:
    id = api.post("/v1.47/containers/create", {"Image": "box", "Cmd": ["x"]}).json["Id"]
    known = docker_api.properties("ContainerUpdate")
    done: tuple[JSON, ...] = (
        {"Memory": 1 << 26, "MemorySwap": 1 << 27, "MemoryReservation": 1 << 25, "PidsLimit": 9},
        {"CpuShares": 77, "CpusetCpus": "0", "CpusetMems": "0", "NanoCpus": 500_000_000},
        {"BlkioWeight": 300, "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
    )
    for asked in done:
        answer = api.post(f"/v1.47/containers/{id}/update", asked)
        assert answer.status == 200, answer
        assert not missing(asked, api.get(f"/containers/{id}/json").json["HostConfig"])
    quota = api.post("/v1.47/containers/create", {"Image": "box", "Cmd": ["x"]}).json["Id"]
    asked = {"CpuQuota": 50_000, "CpuPeriod": 60_000}
    assert api.post(f"/v1.47/containers/{quota}/update", asked).status == 200
    assert not missing(asked, api.get(f"/containers/{quota}/json").json["HostConfig"])
    tried = {path for one in (*done, asked) for path in leaves(one, known=known)}
    # Memory's fine ones want a memory limit that holds, or cgroup v1.
    tried |= {"MemorySwappiness", "OomKillDisable"}
    for path in set(known) - tried:
        key = path.partition("[")[0].partition("{")[0]
        value = {"integer": 1, "boolean": True}.get(known[path], "x") if key == path else ["x"]
        refused(api.post(f"/v1.47/containers/{id}/update", {key: value}), key)
    for asked in ({"MemorySwappiness": 5}, {"OomKillDisable": True}):
        answer = api.post(f"/v1.47/containers/{id}/update", asked)
        if answer.status == 200:
            assert not missing(asked, api.get(f"/containers/{id}/json").json["HostConfig"])
        else:
            refused(answer, "")


def test_networks(api: EngineApi) -> None:
    known = docker_api.properties("NetworkCreate")
    asked: JSON = {
        "Name": "whole",
        "Driver": "bridge",
        "Internal": True,
        "Attachable": True,
        "Labels": {"a": "b"},
        "Options": {"com.example": "x"},
        "Scope": "local",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "Ingress": False,
        "ConfigOnly": False,
        "ConfigFrom": {"Network": ""},
        "IPAM": {
            "Driver": "default",
            "Options": {"x": "y"},
            "Config": [
                {
                    "Subnet": "10.97.9.0/24",
                    "Gateway": "10.97.9.7",
                    "IPRange": "10.97.9.128/25",
                    "AuxiliaryAddresses": {"a": "10.97.9.9"},
                }
            ],
        },
    }
    assert not set(known) - set(leaves(asked, known=known))
    made = api.post("/v1.47/networks/create", asked)
    assert made.status == 201, made
    try:
        assert not missing(asked, api.get("/networks/whole").json)
    finally:
        assert api.call("DELETE", "/networks/whole").status == 204
    wrong: tuple[tuple[JSON, str], ...] = (
        ({"Ingress": True}, "ingress"),
        ({"Scope": "swarm"}, "swarm"),
        ({"Scope": "nosuch"}, "scope"),
        ({"EnableIPv6": True}, "IPv6"),
        ({"EnableIPv4": False}, "IPv4"),
        ({"ConfigOnly": True}, "configuration"),
        ({"ConfigFrom": {"Network": "x"}}, "configuration"),
        ({"Driver": "macvlan"}, "macvlan"),
        ({"IPAM": {"Driver": "dhcp"}}, "dhcp"),
        ({"IPAM": {"Config": [{"NoSuch": "x"}]}}, "NoSuch"),
        ({"IPAM": {"NoSuch": "x"}}, "NoSuch"),
        ({"NoSuch": "x"}, "NoSuch"),
    )
    for more, word in wrong:
        refused(api.post("/v1.47/networks/create", {"Name": "wrong", **more}), word)
    for verb, body in (
        ("connect", {"EndpointConfig": {"GwPriority": 1}}),
        ("connect", {"EndpointConfig": {"NoSuch": "x"}}),
        ("connect", {"NoSuch": "x"}),
        ("disconnect", {"NoSuch": "x"}),
    ):
        made = api.post("/v1.47/containers/create", {"Image": "box", "Cmd": ["x"]})
        answer = api.post(f"/networks/wide/{verb}", {"Container": made.json["Id"], **body})
        refused(answer, "not supported")


def test_volumes(api: EngineApi) -> None:
    asked = {
        "Name": "whole",
        "Driver": "local",
        "Labels": {"a": "b"},
        "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"},
    }
    assert api.post("/v1.47/volumes/create", asked).status == 201
    shown = api.get("/volumes/whole").json
    assert api.call("DELETE", "/volumes/whole").status == 204
    options = asked.pop("DriverOpts")
    assert not missing({**asked, "Options": options}, shown)
    for more in ({"Driver": "nosuch"}, {"ClusterVolumeSpec": {"Group": "x"}}, {"NoSuch": "x"}):
        word = "cluster" if "ClusterVolumeSpec" in more else "nosuch"
        refused(api.post("/v1.47/volumes/create", {"Name": "wrong", **more}), word)
    refused(api.call("PUT", "/volumes/whole?version=1"), "cluster")


def test_exec(api: EngineApi, running_box_site: BoxSite) -> None:
    """All of ExecCreate is used: by test_api_exec's names where inspect does not show it."""
    box = running_box_site.run("sleep 600")
    words = ["sh", "-c", "echo $A; pwd; id -u; stty size"]
    asked = {
        "Cmd": words,
        "Env": ["A=1"],
        "WorkingDir": "/tmp",
        "User": "7",
        "Tty": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "ConsoleSize": [33, 99],
        "DetachKeys": "ctrl-a",
    }
    assert set(docker_api.properties("ExecCreate")) == {
        *(f"{key}[]" if isinstance(value, list) else key for key, value in asked.items()),
        "Privileged",
    }
    id = api.exec(box.uid, *words, **{k: v for k, v in asked.items() if k != "Cmd"})
    shown = api.get(f"/exec/{id}/json").json
    assert shown["ProcessConfig"]["tty"] is True
    assert shown["ProcessConfig"]["user"] == "7"
    assert (shown["OpenStdin"], shown["OpenStdout"], shown["OpenStderr"]) == (True, True, True)
    assert shown["DetachKeys"] == "AQ=="
    stream = api.hijack(f"/exec/{id}/start", {"Tty": True, "Detach": False})
    assert stream.rest().split() == [b"1", b"/tmp", b"7", b"33", b"99"]
    stream.close()
    refused(api.post(f"/containers/{box.uid}/exec", {"Cmd": ["x"], "Privileged": True}), "privil")
    refused(api.post(f"/containers/{box.uid}/exec", {"Cmd": ["x"], "NoSuch": 1}), "NoSuch")
    id = api.exec(box.uid, "true")
    refused(api.post(f"/exec/{id}/start", {"NoSuch": 1}), "NoSuch")
    assert api.post(f"/exec/{id}/start", {"Detach": True}).status == 200


# ---- queries

# Read nowhere, and why that is right; "*" is every endpoint's.
QUERIES_NO_MATTER: Mapping[str, str] = {
    "POST /containers/{id}/start detachKeys": "the attach has its own; dockerd reads none here",
    "GET /images/json all": "no image of ours is in between: each step's layer has no image",
    "GET /images/json digests": "RepoDigests are always told",
    "GET /images/search limit": "searching is refused",
    "GET /images/search term": "searching is refused",
    "GET /system/df verbose": "of later versions: what they leave out is always told",
    "GET /networks/{id} verbose": "of swarm's services",
    "GET /images/{name}/attestations statement": "refused",
    "GET /images/{name}/attestations type": "refused",
    "PUT /volumes/{name} version": "refused",
}


@cache
def words_of(module: str) -> frozenset[str]:
    """The texts of a module of engine.api and of those it imports; empty for any other."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    if not module.startswith("engine.api.") or not path.exists():
        return frozenset()
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        if isinstance(node, ast.ImportFrom) and node.module:
            for one in (node.module, *(f"{node.module}.{one.name}" for one in node.names)):
                found |= words_of(one)
    return frozenset(found)


def test_every_query_parameter_is_read_or_refused() -> None:
    plain = re.compile(r"\{[^}]*\}")
    handlers = {
        (method, plain.sub("{}", path)): handler.__module__
        for table in TABLES
        for method, path, handler in table.table
    }
    unread = set()
    for endpoint, names in docker_api.endpoints().items():
        method, path = endpoint.split(" ")
        module = handlers.get((method, plain.sub("{}", path)), "")
        if module in ("", "engine.api.swarm"):
            continue  # answered without a look at any (test_every_endpoint_is_answered)
        words = words_of(module) | words_of("engine.api.parameters")
        unread |= {f"{endpoint} {name}" for name in names if name not in words}
    assert unread == set(QUERIES_NO_MATTER)


@pytest.mark.parametrize(
    "address",
    [
        "GET /images/box/json?platform=x",
        "GET /images/json?manifests=1",
        "DELETE /images/nosuch?platforms=x",
        "POST /build/prune?reserved-space=1",
        "POST /build?remote=http://x",
        "POST /build?squash=1",
        'POST /build?outputs=[{"Type":"tar"}]',
        'POST /build?securityopt=["seccomp=unconfined"]',
        "POST /build?cgroupparent=x",
        "POST /build?isolation=hyperv",
        "POST /build?platform=linux/s390x",
        "POST /build?version=2",
        "POST /build?networkmode=host",
        "POST /build?networkmode=container:x",
        "POST /build?memory=-5",
        "POST /build?ulimits=x",
        "POST /build?extrahosts=x",
        "POST /build?dockerfile=../x",
        "POST /build?labels=x",
        "POST /build?buildargs=x",
        "POST /build?cachefrom=x",
    ],
)
def test_queries_that_are_refused(api: EngineApi, address: str) -> None:
    method, path = address.split(" ")
    answer = api.call(method, path, b"")
    refused(answer, "")
    assert len(answer.message) > 10
    assert json.loads(answer.body)["message"] != "Cannot locate specified Dockerfile: Dockerfile"
