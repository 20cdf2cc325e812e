"""Volumes and networks over the Docker API: every endpoint, its status, its shape, its filters."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from tests.box_site import BoxSite
from tests.engine_api import EngineApi

TOO_SHORT = "volume name is too short, names should be at least two alphanumeric characters"
NO_PRIVATE = (
    "container cannot be connected to multiple networks with one of the networks in private "
    "(none) mode"
)


@pytest.fixture
def api(box_site: BoxSite) -> EngineApi:
    """The containers go by themselves; the rest is pruned."""
    api = EngineApi.of(box_site)
    api.post("/volumes/prune?filters=" + asked(all=["true"]))
    api.post("/networks/prune")
    return api


def asked(**filters: list[str]) -> str:
    return quote(json.dumps(filters))


def names(api: EngineApi, kind: str, **filters: list[str]) -> list[str]:
    found = api.get(f"/{kind}?filters={asked(**filters)}").json
    return sorted(one["Name"] for one in (found["Volumes"] if kind == "volumes" else found))


def test_volumes(api: EngineApi, box_site: BoxSite) -> None:
    made = api.post("/volumes/create", {"Name": "data", "Labels": {"a": "b"}})
    assert made.status == 201
    assert made.json["Driver"] == made.json["Scope"] == "local" and made.json["Options"] is None
    assert api.get("/v1.41/volumes/data").json == made.json
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    quick = api.post("/volumes/create", {"Name": "quick", "DriverOpts": options})
    assert quick.json["Options"] == options and quick.json["Labels"] is None
    anonymous = api.post("/volumes/create", {}).json["Name"]
    assert len(anonymous) == 64
    for body, status, message in (
        ({"Name": "x"}, 400, f"create x: {TOO_SHORT}"),
        ({"Name": "xx", "Driver": "foo"}, 404,
         'create xx: error looking up volume plugin foo: plugin "foo" not found'),
        ({"Name": "xx", "DriverOpts": {"foo": "1"}}, 400, 'create xx: invalid option: "foo"'),
    ):  # fmt: skip
        answer = api.post("/volumes/create", body)
        assert (answer.status, answer.message) == (status, message)
    container = api.post(
        "/containers/create?name=keeper",
        {"Image": "box", "Cmd": ["true"], "HostConfig": {"Binds": ["data:/data:ro"]}},
    ).json["Id"]
    answer = api.call("DELETE", "/volumes/data?force=1")
    assert answer.status == 409
    assert answer.message == f"remove data: volume is in use - [{container}]"
    (mount,) = api.get("/containers/keeper/json").json["Mounts"]
    assert (mount["Name"], mount["Source"]) == ("data", made.json["Mountpoint"])
    assert (mount["Destination"], mount["Mode"], mount["RW"]) == ("/data", "ro", False)
    assert names(api, "volumes", dangling=["true"]) == sorted(["quick", anonymous])
    assert names(api, "volumes", dangling=["false"]) == ["data"]
    assert names(api, "volumes", label=["a=b"]) == ["data"]
    assert names(api, "volumes", name=["^da", "uick$"]) == ["data", "quick"]
    assert names(api, "volumes", driver=["nfs"]) == []
    answer = api.get(f"/volumes?filters={asked(bad=['1'])}")
    assert (answer.status, answer.message) == (400, "Invalid filter 'bad'")
    assert api.call("DELETE", "/volumes/nothing").message == "get nothing: no such volume"
    assert api.call("DELETE", "/volumes/nothing").status == 404
    assert api.call("DELETE", "/volumes/nothing?force=1").status == 204
    assert api.call("DELETE", "/volumes/quick").status == 204
    assert api.get("/volumes/quick").status == 404
    pruned = api.post("/v1.47/volumes/prune").json
    assert pruned == {"VolumesDeleted": [anonymous], "SpaceReclaimed": 0}
    api.call("DELETE", "/containers/keeper?v=1")
    # Before 1.42 named ones were pruned too.
    assert api.post("/v1.41/volumes/prune").json["VolumesDeleted"] == ["data"]


def test_networks(api: EngineApi, box_site: BoxSite) -> None:
    config = {"Subnet": "10.223.0.0/24", "Gateway": "10.223.0.9"}
    body = {
        "Name": "own",
        "IPAM": {"Config": [config]},
        "Labels": {"a": "b"},
        "Options": {"com.docker.network.driver.mtu": "1400"},
        "Attachable": True,
    }
    made = api.post("/networks/create", body)
    assert made.status == 201 and made.json["Warning"] == ""
    uid = made.json["Id"]
    shape = api.get("/networks/own").json
    assert shape["Id"] == uid
    assert shape["IPAM"] == {"Driver": "default", "Options": None, "Config": [config]}
    assert (shape["Driver"], shape["Scope"], shape["Internal"]) == ("bridge", "local", False)
    assert (shape["Attachable"], shape["Labels"], shape["Containers"]) == (True, {"a": "b"}, {})
    assert api.get(f"/networks/{uid[:12]}").json == shape
    for body, status, message in (
        ({"Name": "own"}, 409, "network with name own already exists"),
        ({"Name": "own", "CheckDuplicate": False}, 409, "network with name own already exists"),
        ({"Name": "own", "CheckDuplicate": True}, 409, "network with name own already exists"),
        ({"Name": "host"}, 403, "operation is not permitted on predefined host network "),
        ({"Name": "x", "Driver": "foo"}, 404, 'plugin "foo" not found'),
        ({"Name": "x", "IPAM": {"Config": [config]}}, 403,
         "Pool overlaps with other one on this address space"),
        ({"Name": "x", "Scope": "swarm"}, 403,
         "cannot create a swarm scoped network when swarm is not active"),
        ({"Name": "x", "EnableIPv6": True}, 501, "IPv6 networks are not supported (use IPv4)"),
    ):  # fmt: skip
        answer = api.post("/networks/create", body)
        assert (answer.status, answer.message) == (status, message)
    box = box_site.run("sleep 60", name="web")
    assert api.post("/networks/own/connect", {"Container": "web"}).status == 200
    member = api.get("/networks/own?verbose=1").json["Containers"][box.uid]
    assert member["Name"] == "web" and member["IPv4Address"] == "10.223.0.1/24"
    assert member["EndpointID"] and member["MacAddress"] == "02:42:0a:df:00:01"
    settings = api.get("/containers/web/json").json["NetworkSettings"]
    assert set(settings["Networks"]) == {"bridge", "own"}
    own = settings["Networks"]["own"]
    assert (own["NetworkID"], own["IPAddress"], own["IPPrefixLen"]) == (uid, "10.223.0.1", 24)
    assert (own["Gateway"], own["Aliases"]) == ("10.223.0.9", [box.uid[:12]])
    assert own["DNSNames"] == ["web", box.uid[:12]]
    assert settings["IPAddress"] == settings["Networks"]["bridge"]["IPAddress"] != ""
    for method, path, sent, status, message in (
        ("POST", "/networks/own/connect", {"Container": "web"}, 403,
         "endpoint with name web already exists in network own"),
        ("POST", "/networks/host/connect", {"Container": "web"}, 400,
         "container cannot be disconnected from host network or connected to host network"),
        ("POST", "/networks/none/connect", {"Container": "web"}, 400,
         NO_PRIVATE),
        ("POST", "/networks/nope/connect", {"Container": "web"}, 404, "network nope not found"),
        ("POST", "/networks/own/connect", {"Container": "nope"}, 404, "No such container: nope"),
        ("DELETE", "/networks/own", None, 403,
         f"error while removing network: network own id {uid} has active endpoints"),
        ("DELETE", "/networks/bridge", None, 403,
         "bridge is a pre-defined network and cannot be removed"),
        ("GET", "/networks/own?scope=swarm", None, 404, "network own not found"),
    ):  # fmt: skip
        answer = api.call(method, path, sent)
        assert (answer.status, answer.message) == (status, message)
    later = api.post("/containers/create?name=later", {"Image": "box", "Cmd": ["true"]}).json["Id"]
    body = {"Container": later, "EndpointConfig": {"MacAddress": "02:42:ac:11:00:02"}}
    assert api.post("/networks/own/connect", body).status == 200
    waits = api.get("/containers/later/json").json["NetworkSettings"]["Networks"]
    assert (waits["own"]["MacAddress"], waits["own"]["IPAddress"]) == ("02:42:ac:11:00:02", "")
    assert waits["bridge"]["MacAddress"] == ""
    assert api.call("DELETE", "/containers/later").status == 204
    assert names(api, "networks", type=["builtin"]) == ["bridge", "host", "none"]
    assert names(api, "networks", name=["ow"]) == ["own"]
    assert names(api, "networks", id=[uid[:8]]) == ["own"]
    assert names(api, "networks", driver=["null"]) == ["none"]
    assert names(api, "networks", label=["a=c"]) == []
    assert names(api, "networks", dangling=["true"]) == []
    assert api.post("/networks/own/disconnect", {"Container": "web"}).status == 200
    answer = api.post("/networks/own/disconnect", {"Container": "web"})
    assert answer.message == f"container {box.uid} is not connected to network own"
    assert names(api, "networks", dangling=["true"]) == ["own"]
    until = api.post(f"/networks/prune?filters={asked(until=['1h'])}")
    assert until.json == {"NetworksDeleted": None}
    assert api.post("/networks/prune").json == {"NetworksDeleted": ["own"]}
    assert api.call("DELETE", "/networks/own").status == 404
