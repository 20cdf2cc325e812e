"""What `docker run` sends, as a request to the services; and what of it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from engine.api.binds import read_bind
from engine.api.create import read_request
from engine.api.fields import Fields
from engine.api.host_shape import host_shape
from engine.containers.options import Mount
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput, QuaysideError, Unsupported
from engine.network.spec import PortBinding

# As docker 28.2.2 sends it for `docker run -d box true`, but for what is null in it.
CLI: dict[str, Any] = {
    "Image": "box",
    "Cmd": ["true"],
    "Labels": {},
    "Env": [],
    "HostConfig": {
        "NetworkMode": "default",
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "ConsoleSize": [24, 80],
        "LogConfig": {"Type": "", "Config": {}},
        "Dns": [],
        "DnsOptions": [],
        "DnsSearch": [],
        "BlkioDeviceReadBps": [],
        "BlkioWeightDevice": [],
        "MemorySwappiness": -1,
        "PidsLimit": 0,
        "OomKillDisable": False,
        "Isolation": "",
        "Binds": None,
        "MaskedPaths": None,
        "ReadonlyPaths": None,
    },
    "NetworkingConfig": {"EndpointsConfig": {}},
}


def _request(**host: Any) -> Any:
    return read_request({**CLI, "HostConfig": {**CLI["HostConfig"], **host}}, "web")


def test_a_plain_run_asks_for_nothing_special() -> None:
    request = _request()
    assert (request.image, request.name, request.command) == ("box", "web", ("true",))
    assert request.entrypoint is None
    assert request.host.limits.memory_swappiness is None
    assert request.host.limits.pids is None
    assert request.host.log.driver == "json-file"
    assert request.network == "default"


def test_a_runtime_is_heeded_wherever_it_is_said() -> None:
    assert read_request({**CLI, "Runtime": "runc"}, "web").host.runtime == "runc"
    assert _request(Runtime="crun").host.runtime == "crun"


def test_an_empty_entrypoint_clears_the_images() -> None:
    assert read_request({**CLI, "Entrypoint": [""]}, "").entrypoint == ()
    assert read_request({**CLI, "Entrypoint": "sh"}, "").entrypoint == ("sh",)


def test_ports_by_address_and_protocol() -> None:
    request = _request(
        PortBindings={
            "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "127.0.0.1"}],
            "53/udp": [{"HostPort": ""}],
        }
    )
    assert request.ports == (
        PortBinding(80, "tcp", "0.0.0.0", 8080),
        PortBinding(80, "tcp", "127.0.0.1", 0),
        PortBinding(53, "udp", "0.0.0.0", 0),
    )


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/data", Mount("volume", "/data")),
        ("data:/data", Mount("volume", "/data", name="data")),
        (
            "data:/data:ro,nocopy",
            Mount("volume", "/data", name="data", read_only=True, no_copy=True),
        ),
        ("/srv:/srv", Mount("bind", "/srv", source="/srv", create=True)),
        (
            "/srv:/x:ro,z,rslave",
            Mount(
                "bind",
                "/x",
                source="/srv",
                read_only=True,
                options=("z",),
                propagation="rslave",
                create=True,
            ),
        ),
    ],
)
def test_binds(text: str, mount: Mount) -> None:
    assert read_bind(text) == mount


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
        (
            "/x:rel",
            (
                "invalid volume specification: '/x:rel': invalid mount config for type \"bind\": "
                "invalid mount path: 'rel' mount path must be absolute"
            ),
        ),
        ("/x:/y:ro,rw", "invalid mode: ro,rw"),
        ("/x:/y:fast", "invalid mode: fast"),
        ("x:/y:shared", "invalid mode: shared"),
    ],
)
def test_binds_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_bind(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (
            {"Type": "foo", "Target": "/x"},
            'invalid mount config for type "foo": mount type unknown',
        ),
        (
            {"Type": "bind", "Target": "/x"},
            'invalid mount config for type "bind": field Source must not be empty',
        ),
        (
            {"Type": "volume", "Source": "a", "Target": "/x", "VolumeOptions": {"Subpath": "b"}},
            "Mounts.VolumeOptions.Subpath is not supported",
        ),
    ],
)
def test_mounts_that_cannot_be(mount: dict[str, Any], message: str) -> None:
    with pytest.raises(QuaysideError) as caught:
        _request(Mounts=[mount])
    assert caught.value.message == message


@pytest.mark.parametrize(
    "host",
    [
        {"DeviceRequests": [{"Count": -1}]},
        {"StorageOpt": {"size": "1G"}},
        {"Isolation": "hyperv"},
        {"MaskedPaths": []},
        {"SomethingNew": True},
        {"PortBindings": {"80/tcp": [{"HostPort": "8000-8010"}]}},
    ],
)
def test_what_is_not_there_is_refused(host: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        _request(**host)


@pytest.mark.parametrize(
    "host", [{"Memory": "1g"}, {"Binds": "x"}, {"Privileged": 1}, {"Dns": [1]}, {"LogConfig": []}]
)
def test_another_type_is_an_error_in_gos_words(host: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="json: cannot unmarshal"):
        _request(**host)


def test_inspect_gives_every_key_back() -> None:
    request = _request(Memory=67108864, Binds=["vol:/vol"], Init=True)
    shape = host_shape(
        ContainerSettings("1" * 64, "web", "", "", host=request.host, docker=request.docker)
    )
    assert shape["Binds"] == ["vol:/vol"]
    assert (shape["Memory"], shape["MemorySwap"]) == (67108864, 134217728)
    assert shape["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert (shape["ShmSize"], shape["Runtime"], shape["IpcMode"]) == (67108864, "runc", "private")
    assert shape["Init"] is True
    assert shape["MemorySwappiness"] is None
    assert len(shape["MaskedPaths"]) == 10


def test_what_a_page_made_is_told_as_docker_run_would_have_asked() -> None:
    settings = ContainerSettings(
        "1" * 64, "web", "", "", ports=(PortBinding(80, "tcp", "0.0.0.0", 8080),)
    )
    shape = host_shape(settings)
    assert shape["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    assert set(shape) >= {"Binds", "Ulimits", "CapAdd", "NetworkMode", "SecurityOpt"}


def test_fields_say_what_nobody_read() -> None:
    fields = Fields({"a": 1, "b": 0, "c": None, "d": "x"}, "T")
    assert fields.number("a") == 1
    assert fields.unread() == ["d"]
