"""Case 24: what a web process in foreign hands may write, worker and engined read with suspicion.

It can write any row (with SQLite of any type: columns do not check) and any file in uploads/. Every
test forges some of that and looks at what root then does: nothing beyond what a signed-in person
may ask for.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from engine.config import EngineConfig
from engine.containers.layout import ContainerDir
from engine.containers.watch import FolderWatcher
from engine.errors import InvalidInput
from engine.models import (
    Build,
    Container,
    Endpoint,
    Image,
    Namespace,
    Network,
    Node,
    Operation,
    Volume,
    VolumeUse,
)
from engine.network import routes
from engine.network.spec import PortBinding
from engine.runtime import processes
from engine.services import containers, images, operations
from engine.services.builds import build_create
from engine.services.namespaces import namespace_create
from engine.services.work.host import host
from engine.services.work.reconcile import reconcile
from engine.streams import logs
from engine.streams.framing import FrameStream
from tests.services_home import ACTOR, build, done, failed, run, upload, work

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = "root's own words"
Kinds = Operation.Kind


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A folder of root's; whatever is forged, it stays as it is."""
    folder = tmp_path / "root"
    folder.mkdir(mode=0o700)
    (folder / "secret").write_text(SECRET)
    (folder / "settings.json").write_text("{}")
    before = _look(folder)
    yield folder
    assert _look(folder) == before
    assert not os.path.ismount(folder)


def _look(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted([folder, *folder.rglob("*")])
    }


def forged(container: Container, **fields: Any) -> Container:
    """The row as web would leave it. Types do not matter to SQLite, nor to this."""
    columns = ", ".join(f"{name} = %s" for name in fields)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE engine_container SET {columns} WHERE id = %s", [*fields.values(), container.pk]
        )
    return container


def with_settings(container: Container, **changes: Any) -> Container:
    return forged(container, settings=json.dumps({**container.settings, **changes}))


def created(namespace: Namespace, *command: str, **options: Any) -> Container:
    """A row and a folder; nothing runs."""
    request = containers.ContainerRequest(
        image="node", command=command or ("sleep", "60"), **options
    )
    container, operation = containers.container_create(namespace, request, ACTOR)
    done(operation)
    return container


def asked(container: Container, kind: Operation.Kind, **args: Any) -> Operation:
    """An operation nobody's checks were asked about."""
    return operations.submit(
        kind, container.namespace, actor=ACTOR, target=str(container.pk), args=args
    )


def started(container: Container) -> Operation:
    return asked(container, Kinds.CONTAINER_START)


def spec_of(container: Container) -> dict[str, Any]:
    """config.json as the runtime got it."""
    path = ContainerDir(settings.ENGINE, container.uid).bundle / "config.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


# ---------------------------------------------------------------- ids that are paths


@pytest.fixture(params=["relative", "absolute", "glob"])
def trap(request: pytest.FixtureRequest, node: Namespace, victim: Path) -> Iterator[Container]:
    """A container whose id leads to a folder of web's, laid out so that every link in it leads
    to root's."""
    config: EngineConfig = settings.ENGINE
    folder = config.home / "uploads" / "trap"
    (folder / "log").mkdir(parents=True)
    (folder / "log" / "current").symlink_to(victim / "secret")
    for name in ("rootfs", "bundle", "etc", "volumes", "exec"):
        (folder / name).symlink_to(victim)
    (folder / "lock").symlink_to(victim / "lock")
    container = created(node)
    (folder / "settings.json").write_text(json.dumps(container.settings))
    own = container.uid
    uid = {"relative": "../uploads/trap", "absolute": str(folder), "glob": "*"}[request.param]
    forged(container, uid=uid).refresh_from_db()
    yield container
    forged(container, uid=own)
    done(asked(container, Kinds.CONTAINER_REMOVE, force=True))
    shutil.rmtree(folder)


@pytest.mark.parametrize("state", ["created", "running"])
def test_an_id_never_becomes_another_path(trap: Container, state: str) -> None:
    forged(trap, state=state)
    trap.refresh_from_db()
    for kind in (
        Kinds.CONTAINER_CREATE,
        Kinds.CONTAINER_START,
        Kinds.CONTAINER_STOP,
        Kinds.CONTAINER_RESTART,
        Kinds.CONTAINER_KILL,
        Kinds.CONTAINER_REMOVE,
    ):
        assert "container id" in failed(asked(trap, kind, force=True))["message"], kind
    assert not any(trap.name in line for line in reconcile())
    forged(trap, state="created")


async def test_an_id_opens_no_other_log(trap: Container) -> None:
    near, far = socket.socketpair()
    with near, far:
        reader, writer = await asyncio.open_unix_connection(sock=near)
        frames = FrameStream(reader, writer)
        watcher = FolderWatcher()
        try:
            for asks in ({"from": 0}, {"download": True}):
                with pytest.raises(InvalidInput, match="container id"):
                    await logs.stream(settings.ENGINE, watcher, frames, trap.uid, asks)
        finally:
            watcher.close()
            await frames.close()
        assert far.recv(1) == b""


def test_a_generation_never_becomes_another_path(node: Namespace) -> None:
    """exits/ID.GENERATION: with it led to web's folder, the process named there would be killed."""
    container = created(node)
    config: EngineConfig = settings.ENGINE
    folder = config.home / "uploads" / "exits"
    folder.mkdir()
    (config.exits_dir / f"{container.uid}.1").mkdir()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as bystander:
        try:
            mine = {
                "boot": processes.boot_id(),
                "conmon_pid": bystander.pid,
                "conmon_start": processes.start_time(bystander.pid),
                "init_pid": bystander.pid,
                "init_start": processes.start_time(bystander.pid),
                "started_at": "2026-01-01T00:00:00+00:00",
                "ports": [],
            }
            (folder / "started.json").write_text(json.dumps(mine))
            forged(container, generation="1/../../uploads/exits", state="running")
            for kind in (
                Kinds.CONTAINER_STOP,
                Kinds.CONTAINER_KILL,
                Kinds.CONTAINER_RESTART,
                Kinds.CONTAINER_REMOVE,
            ):
                failed(asked(container, kind, force=True, grace=0))
            reconcile()
            assert bystander.poll() is None
        finally:
            bystander.send_signal(signal.SIGKILL)
    (config.exits_dir / f"{container.uid}.1").rmdir()
    forged(container, generation=0, state="created")
    done(asked(container, Kinds.CONTAINER_REMOVE))


def test_settings_of_one_are_not_laid_out_as_anothers(node: Namespace) -> None:
    mine, theirs = created(node), created(node)
    path = ContainerDir(settings.ENGINE, theirs.uid).settings
    before = path.read_bytes()
    with_settings(mine, id=theirs.uid, cmd=["true"])
    for kind in (Kinds.CONTAINER_CREATE, Kinds.CONTAINER_START):
        assert theirs.uid in failed(asked(mine, kind))["message"]
    assert path.read_bytes() == before


# ---------------------------------------------------------------- settings


def test_what_no_person_may_ask_for_has_no_field(node: Namespace) -> None:
    """Whatever is written beside the fields there are: it is not read, and the container is as
    confined as any. (What the fields themselves may ask for is case 5.)"""
    plain = run(node, "sleep", "60", name="plain")
    other = created(node, "sleep", "60", name="other")
    with_settings(
        other,
        privileged=True,
        binds=["/:/host"],
        mounts=[{"source": "/", "destination": "/host", "type": "bind", "options": ["rbind"]}],
        devices=["/dev/sda"],
        cap_add=["ALL"],
        capabilities=["CAP_SYS_ADMIN"],
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        pid_mode="host",
        ipc_mode="host",
        userns_mode="host",
        cgroup_parent="/",
        rootfs="/",
        bundle="/root",
        hooks={"prestart": [{"path": "/bin/sh"}]},
        runtime="/bin/sh",
        masked_paths=[],
        sysctls={"kernel.core_pattern": "|/bin/sh"},
    )
    done(started(other))
    expected, found = spec_of(plain), spec_of(other)
    for spec in (expected, found):
        spec["process"].pop("env")
        spec.pop("hostname")
        # Its own, made by the worker at each start.
        network = next(one for one in spec["linux"]["namespaces"] if one["type"] == "network")
        assert re.fullmatch(r"/proc/[0-9]+/ns/net", network.pop("path"))
    text = json.dumps(found).replace(other.uid, plain.uid)
    assert json.loads(text) == expected


@pytest.mark.parametrize("target", ["/../../../etc", "/etc", "/a/../../b", "//host"])
def test_a_volume_is_a_folder_of_ours(node: Namespace, target: str) -> None:
    container = created(node)
    volume = Volume.objects.create(namespace=node, name=f"v{target}")
    VolumeUse.objects.create(volume=volume, container=container, destination=target)
    with_settings(container, host={"mounts": [{"type": "volume", "destination": target}]})
    done(started(container))
    own = ContainerDir(settings.ENGINE, container.uid).etc
    folder = settings.ENGINE.volumes_dir / volume.key.hex
    for mount in spec_of(container)["mounts"]:
        if mount["type"] == "bind":
            assert Path(mount["source"]).parent in (folder, own), mount
            assert ".." not in mount["destination"]


@pytest.mark.parametrize(
    "mount",
    [
        {"source": "/etc"},
        {"source": "/../etc/."},
        {"source": "/proc/self/root/etc"},
        {"source": "/etc", "propagation": "rshared"},
        {"source": "/new", "create": True},
        {"source": "etc"},
        {"source": ""},
    ],
)
def test_no_folder_of_the_host_beyond_the_ceiling(node: Namespace, mount: dict[str, Any]) -> None:
    bind = {"type": "bind", "destination": "/x", **mount}
    container = with_settings(created(node), host={"mounts": [bind]})
    assert failed(started(container))["id"] == "policy-denied"
    assert not Path("/new").exists()


@pytest.mark.parametrize("device", ["/etc", "/proc/self/root/etc", "/"])
def test_no_folder_of_the_host_by_a_volume(node: Namespace, device: str) -> None:
    container = created(node)
    volume = Volume.objects.create(
        namespace=node, name="vol", options={"type": "none", "o": "bind", "device": device}
    )
    VolumeUse.objects.create(volume=volume, container=container, destination="/x")
    with_settings(container, host={"mounts": [{"type": "volume", "destination": "/x"}]})
    assert failed(started(container))["id"] == "policy-denied"


@pytest.mark.parametrize(
    "changes",
    [
        {"chain": "../../../../etc"},
        {"chain": "/etc"},
        {"chain": "container-{other}"},
        {"host": {"mounts": [{"type": "tmpfs", "destination": "relative"}]}},
        {"host": {"mounts": [{"type": "tmpfs", "destination": "/"}]}},
        {"host": {"tmpfs": {"/a\0b": ""}}},
        {"host": {"mounts": [{"type": "volume", "destination": "/nobodys"}]}},
        {"ports": [{"container_port": "80; flush ruleset", "host_port": 0}]},
        {"ports": [{"container_port": 80.5, "host_port": 0}]},
        {"ports": [{"container_port": True, "host_port": 0}]},
        {"ports": [{"container_port": 80, "host_port": 1 << 40}]},
        {"ports": [{"container_port": 80, "protocol": "tcp; flush ruleset"}]},
        {"ports": [{"container_port": 80, "host_ip": "0.0.0.0; flush ruleset"}]},
        {"ports": [{"container_port": 80, "host_ip": 0}]},
        {"ports": [{"container_port": 80, "host_ip": "::"}]},
        {"ports": [{"source": "/"}]},
        {"ports": "80"},
        {"id": "../../etc"},
        {"user": "0:0:0/../../etc"},
        {"user": "no-such-user"},
        {"working_dir": "../../etc"},
        {"cmd": [], "entrypoint": []},
        {"cmd": [{"path": "/bin/sh"}]},
    ],
)
def test_values_that_cannot_be_are_refused(node: Namespace, changes: dict[str, Any]) -> None:
    other = created(node)
    text = json.dumps(changes).replace("{other}", other.uid)
    container = with_settings(created(node), **json.loads(text))
    failed(started(container))
    container.refresh_from_db()
    assert container.state == Container.State.CREATED
    assert not host().network.observe().published


def test_the_ceiling_is_asked_again(services_home: EngineConfig, node: Namespace) -> None:
    """As it is at the start, not as it was when web let the request pass."""
    path = services_home.home / "ceiling.json"
    before = path.read_text()
    bindings = (PortBinding(80, "tcp", "127.0.0.1", 0),)
    container = created(node, ports=bindings)
    try:
        for ceiling in (
            {"publish_addresses": ["10.0.0.0/8"]},
            {"publish_ports": [3000, 3010]},
        ):
            path.write_text(json.dumps(ceiling))
            assert failed(started(container))["id"] == "policy-denied"
        path.write_text("{}")
        os.chown(path, 65534, 0)
        assert "others than root" in failed(started(container))["message"]
    finally:
        path.write_text(before)
        os.chown(path, 0, 0)
    done(started(container))


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize(
    "changes",
    [
        {"bridge": "lo"},
        {"bridge": "eth0"},
        {"bridge": "../../x"},
        {"subnet": "192.0.2.0/24", "gateway": "192.0.2.1"},
        {"subnet": "0.0.0.0/0", "gateway": "8.8.8.8"},
        {"subnet": "127.0.0.0/8", "gateway": "127.0.0.1"},
        {"gateway": "198.51.100.1"},
    ],
)
def test_a_network_is_of_this_home(node: Namespace, changes: dict[str, str]) -> None:
    before = routes.host_subnets()
    container = created(node)
    network = Network.objects.get(namespace=node)
    Network.objects.filter(pk=network.pk).update(**changes)
    if "subnet" in changes:
        address = changes["gateway"][:-1] + "9"
        Endpoint.objects.filter(container=container).update(address=address)
    failed(started(container))
    assert routes.host_subnets() == before
    Network.objects.filter(pk=network.pk).update(
        bridge=network.bridge, subnet=network.subnet, gateway=network.gateway
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"names": ["a\n10.0.0.1 registry-1.docker.io"]},
        {"names": ["a,b 1.2.3.4"]},
        {"mac": "00:00:00:00:00:00; rm"},
    ],
)
def test_an_endpoint_carries_no_text_further(node: Namespace, changes: dict[str, Any]) -> None:
    container = created(node)
    Endpoint.objects.filter(container=container).update(**changes)
    failed(started(container))


# ---------------------------------------------------------------- builds and uploads


@pytest.mark.parametrize("path", ["../../../{victim}/secret", "{victim}/secret", "sub/../../../x"])
def test_a_dockerfile_is_in_its_context(node: Namespace, victim: Path, path: str) -> None:
    path = path.replace("{victim}", str(victim))
    made, error = build(
        node, upload=upload(node, {"Dockerfile": "FROM scratch\n"}), dockerfile_path=path
    )
    assert error is not None
    made.refresh_from_db()
    assert SECRET not in made.dockerfile + json.dumps(error)


def test_a_link_in_the_context_leads_nowhere_else(node: Namespace, victim: Path) -> None:
    (victim.parent / "context").mkdir()
    (victim.parent / "context" / "Dockerfile").symlink_to(victim / "secret")
    made, error = build(node, upload=upload(node, victim.parent / "context"))
    assert error is not None
    assert SECRET not in made.dockerfile + json.dumps(error)


@pytest.mark.parametrize("kind", ["link", "link to a folder", "fifo", "folder", "nothing"])
def test_an_upload_is_a_file_of_its_own(node: Namespace, victim: Path, kind: str) -> None:
    sent = upload(node, {"Dockerfile": "FROM scratch\n"})
    path: Path = settings.ENGINE.home / "uploads" / str(sent.pk)
    path.unlink()
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(victim / "secret"),
        "link to a folder": lambda: path.symlink_to(victim),
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "nothing": lambda: None,
    }
    make[kind]()
    _, error = build(node, upload=sent)
    assert error is not None
    assert (error["id"], error["hint"]) == ("build-context", "upload it again")


def test_builds_that_go_back_to_each_other_end(node: Namespace) -> None:
    first, _ = build(node, "FROM scratch\nCOPY nothing /\n")
    second, _ = build(node, "FROM scratch\nCOPY nothing /\n", again=first)
    (settings.ENGINE.builds_dir / str(first.pk) / "context").rmdir()
    Build.objects.filter(pk=first.pk).update(again=second, tag="")
    third, operation = build_create(node, actor=ACTOR, again=first)
    assert "no longer kept" in failed(operation)["message"]
    Build.objects.filter(pk=third.pk).update(again=third)
    again = operations.submit(Kinds.BUILD_RUN, node, actor=ACTOR, target=str(third.pk))
    assert "no longer kept" in failed(again)["message"]


def test_a_dockerfile_has_an_end(node: Namespace) -> None:
    files = {"Dockerfile": "FROM scratch\n" + "#" * (2 << 20)}
    _, error = build(node, upload=upload(node, files))
    assert error is not None
    assert "larger than 1 MiB" in error["message"]


# ---------------------------------------------------------------- operations and images


def test_an_operation_acts_in_its_own_namespace(node: Namespace) -> None:
    """Who may do what is asked of the operation's namespace; its target must be there."""
    other = namespace_create("other")
    container = created(node)
    image = images.find_image(node, "node")
    made = Build.objects.create(
        namespace=node, node=Node.objects.get(), number=900, dockerfile="FROM scratch\n"
    )
    for kind, target in (
        (Kinds.CONTAINER_REMOVE, container.pk),
        (Kinds.CONTAINER_START, container.pk),
        (Kinds.IMAGE_REMOVE, image.pk),
        (Kinds.BUILD_RUN, made.pk),
    ):
        operation = operations.submit(
            kind, other, actor=ACTOR, target=str(target), args={"force": True}
        )
        assert failed(operation)["id"] == "not-found"
    assert Container.objects.filter(pk=container.pk).exists()
    assert Image.objects.filter(pk=image.pk).exists()
    made.delete()


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        (Kinds.CONTAINER_START, {"cols": "80; x", "rows": 24}),
        (Kinds.CONTAINER_START, {"cols": 80}),
        (Kinds.CONTAINER_KILL, {"signal": "KILL; reboot"}),
        (Kinds.CONTAINER_KILL, {"signal": {"pid": 1}}),
        (Kinds.CONTAINER_STOP, {"grace": "for ever"}),
    ],
)
def test_arguments_are_values(node: Namespace, kind: Operation.Kind, args: dict[str, Any]) -> None:
    container = created(node) if kind == Kinds.CONTAINER_START else run(node, "sleep", "60")
    failed(asked(container, kind, **args))


@pytest.mark.parametrize("target", ["../1", "1 OR 1=1", "", "-1"])
def test_a_target_is_a_key(node: Namespace, target: str) -> None:
    for kind in (Kinds.CONTAINER_REMOVE, Kinds.BUILD_RUN, Kinds.IMAGE_REMOVE):
        failed(operations.submit(kind, node, actor=ACTOR, target=target))


def test_an_image_names_digests_only(node: Namespace, victim: Path) -> None:
    image = images.find_image(node, "node")
    way = f"sha256:../../../../../..{victim}/secret"
    for changes in (
        {"digest": way},
        {"layers": [{**layer, "digest": way, "diff_id": way} for layer in image.layers]},
    ):
        Image.objects.filter(pk=image.pk).update(**changes)
        _, error = build(node, "FROM node\nRUN true\n", no_cache=True)
        assert error is not None
        assert SECRET not in json.dumps(error)
        Image.objects.filter(pk=image.pk).update(digest=image.digest, layers=image.layers)


def test_an_owner_that_is_none_is_a_dead_one(namespace: Namespace) -> None:
    for owner in ("", "local", "local:x:y", "local:1:2:3", f"local:{'9' * 40}:1"):
        assert not operations.owner_lives(owner)
    operation = operations.submit(Kinds.IMAGE_REMOVE, namespace, actor=ACTOR, target="7")
    Operation.objects.filter(pk=operation.pk).update(
        state=Operation.State.RUNNING, owner="nobody", attempt=1
    )
    assert operations.requeue_lost() == [operation]
    work(operation)


def test_web_cannot_write_what_roots_processes_trust(services_home: EngineConfig) -> None:
    """The home's folders and files by owner: web's are db/ and uploads/ and nothing else."""
    web = {"db", "uploads"}
    for entry in services_home.home.iterdir():
        status = entry.stat()
        assert not status.st_mode & 0o002, entry
        if entry.name in web:
            continue
        assert status.st_uid == 0, entry
        assert not status.st_mode & 0o020, entry
