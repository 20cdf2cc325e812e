"""A create that the API refuses, early or late, leaves nothing behind: no row, no volume, no
address, no folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.box_site import BoxSite
from tests.engine_api import EngineApi

_ROWS = """
result = {
    "containers": sorted(Container.objects.values_list("uid", flat=True)),
    "volumes": sorted(Volume.objects.values_list("name", flat=True)),
    "uses": VolumeUse.objects.count(),
    "endpoints": Endpoint.objects.count(),
    "ports": Port.objects.count(),
}
"""
_FOLDERS = ("containers", "volumes", "snapshots/active")
# Asked for beside what is wrong, so that there is something to be left behind.
_MORE: dict[str, Any] = {
    "Mounts": [{"Type": "volume", "Source": "fresh", "Target": "/fresh"}],
    "PortBindings": {"80/tcp": [{"HostPort": ""}]},
}
_VOLUME = _MORE["Mounts"][0]


@pytest.fixture
def api(running_box_site: BoxSite) -> Iterator[EngineApi]:
    yield EngineApi.of(running_box_site)
    running_box_site.remove_all()


def everything(site: BoxSite) -> dict[str, Any]:
    folders = {
        f"{name}/": sorted(str(path.relative_to(site.site.home)) for path in folder.glob("*"))
        for name in _FOLDERS
        for folder in [site.site.home / name]
    }
    return {**site.call(_ROWS), **folders}


@pytest.mark.parametrize(
    ("host", "more", "status", "words"),
    [
        ({}, {"Image": "gone:1"}, 404, "No such image: gone:1"),
        ({}, {"name": "taken"}, 409, "is already in use"),
        ({"CapAdd": ["SYS_ADMIN"]}, {}, 403, "SYS_ADMIN"),
        ({"Binds": ["/etc:/outside"]}, {}, 403, "/etc"),
        (
            {"Mounts": [_VOLUME, {"Type": "bind", "Source": "/nope", "Target": "/n"}]},
            {},
            403,
            "/nope",
        ),
        (
            {
                "Mounts": [
                    _VOLUME,
                    {
                        "Type": "volume",
                        "Source": "elsewhere",
                        "Target": "/e",
                        "VolumeOptions": {"DriverConfig": {"Name": "nfs"}},
                    },
                ]
            },
            {},
            400,
            "nfs",
        ),
        ({"NetworkMode": "nowhere"}, {}, 400, "nowhere"),
        ({"NetworkMode": "container:nobody"}, {}, 400, "nobody"),
        ({"VolumesFrom": ["nobody"]}, {}, 400, "nobody"),
        ({"Memory": 1}, {}, 400, "6MB"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_nothing_is_left(
    running_box_site: BoxSite,
    api: EngineApi,
    host: dict[str, Any],
    more: dict[str, Any],
    status: int,
    words: str,
) -> None:
    taken = api.post("/containers/create?name=taken", {"Image": "box", "Cmd": ["true"]})
    assert taken.status == 201
    before = everything(running_box_site)
    body = {
        "Image": "box",
        "Cmd": ["true"],
        "Volumes": {"/anonymous": {}},
        "HostConfig": {**_MORE, **host},
        **{key: value for key, value in more.items() if key != "name"},
    }
    answer = api.post(f"/containers/create?name={more.get('name', 'failing')}", body)
    assert (answer.status, words in answer.message) == (status, True), answer
    assert everything(running_box_site) == before


def test_without_a_mistake_the_same_request_makes_all_that(
    running_box_site: BoxSite, api: EngineApi
) -> None:
    """What the test above looks at does change, and is as before when all is removed."""
    before = everything(running_box_site)
    body = {
        "Image": "box",
        "Cmd": ["sleep", "60"],
        "Volumes": {"/anonymous": {}},
        "HostConfig": _MORE,
    }
    assert api.post("/containers/create?name=whole", body).status == 201
    assert api.post("/containers/whole/start").status == 204
    after = everything(running_box_site)
    assert [key for key in before if before[key] == after[key]] == []
    assert api.call("DELETE", "/containers/whole?force=1&v=1").status == 204
    assert api.call("DELETE", "/volumes/fresh").status == 204
    assert everything(running_box_site) == before
