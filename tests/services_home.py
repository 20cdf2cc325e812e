"""The services on a home of their own, in this process: operations run as the worker runs them,
and the real supervisor sees the ends. Fixtures are given out by tests/integration/conftest.py.

    services_home   the module's home; its blobs and layers stay from one test to the next
    namespace       a team in it; after the test nothing may be left of what was done there
    node            the same, with the image `node` (busybox, whose name is what matters) pulled
"""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from django.conf import settings
from django.db import connections
from django.test import override_settings

from console.home import prepare, web_user
from engine.config import EngineConfig
from engine.containers.layout import ContainerDir
from engine.containers.logs import LogReader
from engine.containers.memory import keep_in_memory, let_go
from engine.models import Build, Container, Namespace, Operation, Upload
from engine.runtime import cgroups
from engine.services import builds, containers, images, namespaces, operations, uploads
from engine.services.work import builds as builds_work
from engine.services.work import containers as containers_work
from engine.services.work import images as images_work
from engine.services.work import networks as networks_work
from engine.services.work import volumes as volumes_work
from engine.services.work.exits import record_exit
from engine.services.work.host import host
from engine.services.work.supervisor import Supervisor
from tests.agreement import disagreements
from tests.pools import free_pool
from tests.registry import RegistryServer, push_image, running_registry
from tests.rootfs import make_rootfs

ACTOR = "user:1"
_HANDLERS = {
    "build": builds_work.handle,
    "container": containers_work.handle,
    "image": images_work.handle,
    "network": networks_work.handle,
    "volume": volumes_work.handle,
}


@contextmanager
def running_home(home: Path, **changes: Any) -> Iterator[EngineConfig]:
    """`changes` are fields of EngineConfig. Whatever was made in it is gone afterwards."""
    changes = {"address_pool": IPv4Network(free_pool()), **changes}
    config = replace(settings.ENGINE, home=home, **changes)
    with override_settings(ENGINE=config):
        prepare(config, web_user())
        host.cache_clear()
        keep_in_memory(config)
        supervisor = Supervisor(config.exits_dir, record_exit)
        supervisor.start()
        try:
            yield config
        finally:
            supervisor.stop()
            top = f"/{config.cgroup_parent}"
            cgroups.kill(top)
            assert cgroups.wait_empty(top, 10)
            cgroups.remove_tree(top)
            let_go(config)
            host.cache_clear()


def clear() -> None:
    """Every container, the network and half-fetched blobs of the settings' home go, by force."""
    for container in Container.objects.all():
        work(containers.container_remove(container, ACTOR, force=True))
    host().network.release_all()
    host().content.expire_ingests(0)
    host.cache_clear()


@pytest.fixture(scope="session")
def busybox_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """docker.io's mirror; busybox is its library/node."""
    folder = tmp_path_factory.mktemp("registry")
    with running_registry(folder) as registry:
        rootfs = make_rootfs(folder / "rootfs")
        push_image(
            registry, "library/node", layers=[rootfs], config={"Cmd": ["sh"], "Env": ["PATH=/bin"]}
        )
        yield registry


@pytest.fixture(scope="module")
def services_home(
    busybox_registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineConfig]:
    mirrors = {"docker.io": (busybox_registry.url,)}
    with running_home(tmp_path_factory.mktemp("services") / "home", mirrors=mirrors) as config:
        yield config


@pytest.fixture
def namespace(services_home: EngineConfig) -> Iterator[Namespace]:
    yield from team()


def team() -> Iterator[Namespace]:
    """For fixtures: a namespace; afterwards rows, disk and kernel agree, and all is cleared."""
    try:
        yield namespaces.namespace_create("team")
        settle()
    finally:
        clear()


@pytest.fixture
def node(namespace: Namespace) -> Namespace:
    done(images.image_pull(namespace, "node", ACTOR))
    return namespace


def settle(but: Iterable[str] = (), seconds: float = 4) -> None:
    """Wait until nothing is left over and nothing missing, but for lines that begin so."""
    allowed = tuple(but)
    deadline = time.monotonic() + seconds
    while left := [line for line in disagreements() if not line.startswith(allowed)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def work(operation: Operation) -> Operation:
    """Run it here and now; its error is the test's."""
    operations.run(operation.pk, _HANDLERS[operation.kind.partition(".")[0]])
    operation.refresh_from_db()
    return operation


def done(operation: Operation) -> Operation:
    work(operation)
    assert operation.state == Operation.State.DONE, operation.error
    return operation


def failed(operation: Operation) -> dict[str, Any]:
    """Run it; it must fail, with a sentence. The error."""
    work(operation)
    assert operation.state == Operation.State.FAILED, operation.state
    error: dict[str, Any] | None = operation.error
    assert error is not None
    assert error["message"], error
    return error


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)


def run(namespace: Namespace, *command: str, image: str = "node", **options: Any) -> Container:
    request = containers.ContainerRequest(image=image, command=command, **options)
    container, operation = containers.container_run(namespace, request, ACTOR)
    done(operation)
    container.refresh_from_db()
    return container


def ended(container: Container) -> int:
    """Wait for its end; the exit code."""
    eventually(lambda: Container.objects.get(pk=container.pk).state == Container.State.EXITED)
    container.refresh_from_db()
    assert container.exit_code is not None
    return container.exit_code


def log_from(container: Container, offset: int) -> tuple[str, int]:
    """The log's text from an offset on, and the offset after it."""
    with LogReader(ContainerDir(settings.ENGINE, container.uid).log) as reader:
        lines, end, gap = reader.read_lines(offset, 1 << 20)
    assert gap is None
    return "".join(f"{line.text.decode()}\n" for line in lines), end


def log_of(container: Container) -> str:
    return log_from(container, 0)[0]


def answer(port: int) -> str:
    """What the published port says; empty while nobody answers."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=2) as response:
            text: str = response.read().decode()
            return text
    except OSError:
        return ""


def upload(
    namespace: Namespace, source: Path | Mapping[str, str] | bytes, name: str = "app.tar"
) -> Upload:
    """A folder, files or an archive's bytes, sent in pieces as a browser sends them."""
    data = source if isinstance(source, bytes) else _tar(source)
    made = uploads.upload_create(namespace, 1, name, len(data))
    piece = max(1, len(data) // 3)
    for offset in range(0, len(data), piece):
        uploads.upload_append(made, offset, data[offset : offset + piece])
    return uploads.upload_finish(made)


def _tar(source: Path | Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        if isinstance(source, Path):
            archive.add(source, ".")
        else:
            for path, text in source.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def build(
    namespace: Namespace, dockerfile: str = "", **options: Any
) -> tuple[Build, dict[str, Any] | None]:
    """Build to the end, as it may end; the row and its error."""
    made, operation = builds.build_create(
        namespace, actor=ACTOR, dockerfile=dockerfile, **{"tag": "app", **options}
    )
    work(operation)
    made.refresh_from_db()
    assert made.error == operation.error
    assert made.state == operation.state
    return made, made.error


def built(namespace: Namespace, dockerfile: str = "", **options: Any) -> Build:
    made, error = build(namespace, dockerfile, **options)
    assert made.state == Build.State.DONE, error
    return made


def events(build: Build, kind: str = "") -> list[dict[str, Any]]:
    """What the build's log says, of one kind or of all."""
    text = (builds_work.folder_of(build) / "log.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    return [event for event in found if kind in ("", event["t"])]


def step_states(build: Build) -> dict[str, str]:
    """{instruction: how its step ended}, by the log."""
    (plan,) = events(build, "plan")
    last = {event["n"]: event["state"] for event in events(build, "step")}
    return {step["text"]: last.get(step["n"], "") for step in plan["steps"]}


def output(build: Build) -> str:
    return "".join(event["d"] for event in events(build, "out"))


@contextmanager
def background(operation: Operation) -> Iterator[threading.Thread]:
    """A worker of its own runs it meanwhile; it has ended when the block is left."""

    def worker() -> None:
        try:
            operations.run(operation.pk, _HANDLERS[operation.kind.partition(".")[0]])
        finally:
            connections.close_all()

    thread = threading.Thread(target=worker, name="worker")
    thread.start()
    try:
        yield thread
    finally:
        thread.join(30)
    assert not thread.is_alive(), "the operation did not end"
    operation.refresh_from_db()
