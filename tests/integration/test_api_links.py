"""Links over the Docker API, and what else an endpoint can be asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.box_site import BoxSite
from tests.engine_api import EngineApi, frames

PAUSE = ["sh", "-c", "trap exit TERM; while :; do sleep 0.1; done"]


@pytest.fixture
def api(running_box_site: BoxSite) -> Iterator[EngineApi]:
    engine = EngineApi.of(running_box_site)
    yield engine
    running_box_site.remove_all()
    engine.call("DELETE", "/networks/linked")


def create(api: EngineApi, name: str, **more: Any) -> str:
    body = {"Image": "box", "Cmd": PAUSE, **more}
    answer = api.post(f"/containers/create?name={name}", body)
    assert answer.status == 201, answer
    return str(answer.json["Id"])


def start(api: EngineApi, name: str) -> None:
    answer = api.post(f"/containers/{name}/start")
    assert answer.status == 204, answer


def said(api: EngineApi, name: str, command: str) -> str:
    data = api.run_exec(name, "sh", "-c", command)[1]
    return b"".join(part for _, part in frames(data)).decode()


def shown(api: EngineApi, name: str) -> Any:
    return api.get(f"/containers/{name}/json").json


def test_a_link_on_the_default_network(api: EngineApi) -> None:
    links = {"HostConfig": {"Links": ["target:the-db"]}}
    missing = api.post("/containers/create", {"Image": "box", "Cmd": ["true"], **links})
    assert missing.status == 400
    assert missing.message == "could not get container for target: No such container: target"
    target = create(api, "target", Env=["FOO=1"], ExposedPorts={"80/tcp": {}})
    create(api, "source", **links)
    assert shown(api, "source")["HostConfig"]["Links"] == ["/target:/source/the-db"]
    refused = api.post("/containers/source/start")
    assert refused.status == 409
    assert "Cannot link to a non running container: /target AS /source/the-db" in refused.message
    start(api, "target")
    start(api, "source")
    address = shown(api, "target")["NetworkSettings"]["IPAddress"]
    line = f"{address}\tthe-db {target[:12]} target\n"
    assert line in said(api, "source", "cat /etc/hosts")
    assert "source" not in said(api, "target", "cat /etc/hosts")
    assert said(api, "source", "env | grep ^THE_DB_ | sort").split("\n")[:-1] == [
        "THE_DB_ENV_FOO=1",
        "THE_DB_NAME=/source/the-db",
        f"THE_DB_PORT=tcp://{address}:80",
        f"THE_DB_PORT_80_TCP=tcp://{address}:80",
        f"THE_DB_PORT_80_TCP_ADDR={address}",
        "THE_DB_PORT_80_TCP_PORT=80",
        "THE_DB_PORT_80_TCP_PROTO=tcp",
    ]
    assert "THE_DB" not in str(shown(api, "source")["Config"]["Env"])
    assert api.post("/containers/target/restart?t=0").status == 204
    assert line in said(api, "source", "cat /etc/hosts")
    moved(api, "target", address)
    address = shown(api, "target")["NetworkSettings"]["IPAddress"]
    assert f"{address}\tthe-db {target[:12]} target\n" in said(api, "source", "cat /etc/hosts")
    assert api.call("DELETE", "/containers/source/nope?link=1").status == 404
    assert api.call("DELETE", "/containers/source/the-db?link=1").status == 204
    assert "the-db" not in said(api, "source", "cat /etc/hosts")
    assert shown(api, "source")["HostConfig"]["Links"] is None
    assert shown(api, "source")["State"]["Running"] is True


def moved(api: EngineApi, name: str, address: str, **more: Any) -> None:
    """The container runs again, at another address than this, which it had."""
    assert api.post(f"/containers/{name}/stop?t=0").status == 204
    create(api, f"instead-of-{name}", **more)
    start(api, f"instead-of-{name}")
    start(api, name)
    assert address_of(api, f"instead-of-{name}") == address != address_of(api, name)


def address_of(api: EngineApi, name: str) -> str:
    (endpoint,) = shown(api, name)["NetworkSettings"]["Networks"].values()
    return str(endpoint["IPAddress"])


def found(api: EngineApi, name: str, asked: str) -> str:
    """The address that nslookup inside a container names; "" where there is none."""
    text = said(api, name, f"nslookup {asked} 2>&1")
    lines = [line for line in text.split(asked, 1)[-1].splitlines() if "Address" in line]
    return lines[0].split(":", 1)[1].split()[0] if lines else ""


def test_the_alias_of_a_link_is_a_name_for_who_has_it(api: EngineApi) -> None:
    assert api.post("/networks/create", {"Name": "linked"}).status == 201
    own = {"HostConfig": {"NetworkMode": "linked"}}
    wishes = {"Links": ["target:db"]}
    create(api, "source", NetworkingConfig={"EndpointsConfig": {"linked": wishes}}, **own)
    target = create(api, "target", **own)
    create(api, "other", **own)
    for name in ("source", "other"):
        start(api, name)
    assert found(api, "source", "db") == ""
    start(api, "target")
    address = address_of(api, "target")
    assert found(api, "source", "db") == found(api, "source", "target") == address
    assert found(api, "other", "target") == address
    assert found(api, "other", "db") == ""
    moved(api, "target", address, **own)
    assert found(api, "source", "db") == address_of(api, "target")
    # Of one that comes later, by a whole id; gone with its end, and the target's.
    body = {"Container": "other", "EndpointConfig": {"Links": [f"{target}:store"]}}
    assert api.post("/networks/linked/disconnect", {"Container": "other"}).status == 200
    assert api.post("/networks/linked/connect", body).status == 200
    assert found(api, "other", "store") == address_of(api, "target")
    assert found(api, "source", "store") == ""
    assert api.post("/networks/linked/disconnect", {"Container": "source"}).status == 200
    assert api.post("/networks/linked/connect", {"Container": "source"}).status == 200
    assert found(api, "source", "target") == address_of(api, "target")
    assert found(api, "source", "db") == ""
    assert api.post("/containers/target/stop?t=0").status == 204
    assert found(api, "other", "store") == ""


def test_an_endpoint_has_links_further_addresses_and_driver_options(api: EngineApi) -> None:
    assert api.post("/networks/create", {"Name": "linked"}).status == 201
    own = {"HostConfig": {"NetworkMode": "linked"}}
    wishes = {
        "Links": ["later:db"],
        "IPAMConfig": {"LinkLocalIPs": ["169.254.8.8"]},
        "DriverOpts": {"com.example": "on"},
    }
    create(api, "source", NetworkingConfig={"EndpointsConfig": {"linked": wishes}}, **own)
    create(api, "other", **own)
    start(api, "source")
    start(api, "other")
    endpoint = shown(api, "source")["NetworkSettings"]["Networks"]["linked"]
    assert {key: endpoint[key] for key in wishes} == wishes
    assert "169.254.8.8/16" in said(api, "source", "ip -o -4 addr show dev eth0")
    assert "db" not in said(api, "source", "cat /etc/hosts")
    create(api, "later", **own)
    start(api, "later")
    address = shown(api, "later")["NetworkSettings"]["Networks"]["linked"]["IPAddress"]
    line = f"{address}\tdb\n"
    assert line in said(api, "source", "cat /etc/hosts")
    assert "db" not in said(api, "other", "cat /etc/hosts")
    # Told once more at a connect, and gone with a disconnect.
    for path, body, there in (
        ("disconnect", {}, False),
        ("connect", {}, False),
        ("disconnect", {}, False),
        ("connect", {"EndpointConfig": wishes}, True),
    ):
        answer = api.post(f"/networks/linked/{path}", {"Container": "source", **body})
        assert answer.status == 200, answer
        assert (line in said(api, "source", "cat /etc/hosts")) is there, path
    for bad in ({"IPAMConfig": {"LinkLocalIPs": ["1.2.3.4"]}}, {"Links": ["a:b:c"]}):
        body = {"Container": "other", "EndpointConfig": bad}
        assert api.post("/networks/bridge/connect", body).status == 400
