"""The study notes' tour through the services, without a browser: pull, run, see, stop, start.

Operations run in this process, as the worker would run them; the supervisor is the real one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from django.conf import settings
from django.test import override_settings

from console.home import prepare, web_user
from engine.containers.logs import LogReader
from engine.containers.layout import ContainerDir
from engine.errors import NameTaken, NotFound, PortTaken, WrongState
from engine.models import Container, Namespace, Operation
from engine.network.spec import PortBinding
from engine.services import containers, images, namespaces, operations
from engine.services.work import containers as containers_work
from engine.services.work import host as host_module
from engine.services.work import images as images_work
from engine.services.work.containers import record_exit
from engine.services.work.reconcile import reconcile
from engine.services.work.supervisor import Supervisor
from tests.registry import push_image, running_registry
from tests.rootfs import make_rootfs
from tests.site import free_port

pytestmark = pytest.mark.django_db(transaction=True)
ACTOR = "user:1"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """docker.io's mirror with busybox as library/node: the name is what matters here."""
    folder = tmp_path_factory.mktemp("registry")
    with running_registry(folder) as registry:
        rootfs = make_rootfs(folder / "rootfs")
        push_image(
            registry, "library/node", layers=[rootfs], config={"Cmd": ["sh"], "Env": ["PATH=/bin"]}
        )
        yield registry.url


@pytest.fixture
def machine(mirror: str, tmp_path: Path) -> Iterator[None]:
    """A home with nothing in it, and nothing left of it afterwards."""
    from dataclasses import replace

    config = replace(settings.ENGINE, home=tmp_path / "home", mirrors={"docker.io": (mirror,)})
    with override_settings(ENGINE=config):
        prepare(config, web_user())
        host_module.host.cache_clear()
        supervisor = Supervisor(config.exits_dir, record_exit)
        supervisor.start()
        try:
            yield
        finally:
            supervisor.stop()
            for container in Container.objects.all():
                work(containers.container_remove(container, ACTOR, force=True))
            host_module.host().network.release_all()
            host_module.host.cache_clear()


@pytest.fixture
def namespace(machine: None) -> Namespace:
    return namespaces.namespace_create("team")


def work(operation: Operation) -> Operation:
    """Run it here and now; its error is the test's."""
    handler = images_work.handle if operation.kind.startswith("image.") else containers_work.handle
    operations.run(operation.pk, handler)
    operation.refresh_from_db()
    return operation


def done(operation: Operation) -> Operation:
    work(operation)
    assert operation.state == Operation.State.DONE, operation.error
    return operation


def eventually(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.005)


def log_of(container: Container) -> str:
    with LogReader(ContainerDir(settings.ENGINE, container.uid).log) as reader:
        lines, _, gap = reader.read_lines(0)
    assert gap is None
    return "".join(f"{line.text.decode()}\n" for line in lines)


@pytest.fixture
def node(namespace: Namespace) -> Namespace:
    done(images.image_pull(namespace, "node", ACTOR))
    return namespace


def run(namespace: Namespace, *command: str, **options: object) -> Container:
    request = containers.ContainerRequest(image="node", command=command, **options)  # type: ignore[arg-type]
    container, operation = containers.container_run(namespace, request, ACTOR)
    done(operation)
    container.refresh_from_db()
    return container


def test_from_a_registry_to_a_page_on_a_port(node: Namespace) -> None:
    port = free_port()
    container = run(
        node,
        *("sh", "-c", "mkdir -p /www && echo hello > /www/index.html && exec httpd -f -p 80 -h /www"),
        name="web",
        ports=(PortBinding(80, "tcp", "127.0.0.1", port),),
    )
    assert container.state == Container.State.RUNNING
    assert container.ports.get().published_port == port
    eventually(lambda: _answers(port) == "hello\n")

    done(containers.container_stop(container, ACTOR, grace=1))
    container.refresh_from_db()
    assert container.state == Container.State.EXITED
    assert container.exit_code is not None
    assert container.ports.get().published_port is None
    with pytest.raises(OSError):
        urlopen(f"http://127.0.0.1:{port}/", timeout=1)

    done(containers.container_start(container, ACTOR))
    container.refresh_from_db()
    assert container.generation == 2
    with pytest.raises(WrongState):
        containers.container_start(container, ACTOR)


def _answers(port: int) -> str:
    try:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=1) as answer:
            return answer.read().decode()  # type: ignore[no-any-return]
    except OSError:
        return ""


def test_an_exit_is_written_down_with_its_code(node: Namespace) -> None:
    container = run(node, "sh", "-c", "echo out; echo err >&2; exit 7")
    eventually(lambda: Container.objects.get(pk=container.pk).exit_code == 7)
    container.refresh_from_db()
    assert container.state == Container.State.EXITED
    assert container.finished_at is not None
    assert sorted(log_of(container).split()) == ["err", "out"]


def test_rm_takes_the_container_away_after_its_end(node: Namespace) -> None:
    container = run(node, "true", auto_remove=True)
    eventually(lambda: not Container.objects.filter(pk=container.pk).exists())
    eventually(lambda: not ContainerDir(settings.ENGINE, container.uid).settings.exists())


def test_containers_of_one_image_do_not_see_each_other(node: Namespace) -> None:
    first = run(node, "sh", "-c", "echo mine > /data; cat /data", name="first")
    eventually(lambda: Container.objects.get(pk=first.pk).state == "exited")
    second = run(node, "sh", "-c", "cat /data || echo nothing here", name="second")
    eventually(lambda: Container.objects.get(pk=second.pk).state == "exited")
    assert "nothing here" in log_of(second)
    first.refresh_from_db()
    done(containers.container_start(first, ACTOR))
    eventually(lambda: log_of(first).count("mine") == 2)


def test_a_name_and_a_port_that_are_taken_say_so(node: Namespace) -> None:
    port = free_port()
    binding = (PortBinding(80, "tcp", "0.0.0.0", port),)
    run(node, "sleep", "60", name="one", ports=binding)
    with pytest.raises(NameTaken):
        run(node, "true", name="one")
    request = containers.ContainerRequest(
        image="node", command=("sleep", "60"), name="two", ports=binding
    )
    container, operation = containers.container_run(node, request, ACTOR)
    work(operation)
    assert operation.state == Operation.State.FAILED
    assert operation.error is not None
    assert operation.error["id"] == PortTaken.id
    assert operation.error["context"]["port"] == port
    container.refresh_from_db()
    assert container.state == Container.State.CREATED
    assert container.error == operation.error


def test_an_image_that_is_not_here_says_what_to_do(node: Namespace) -> None:
    with pytest.raises(NotFound, match="no such image here: nginx"):
        containers.container_run(node, containers.ContainerRequest(image="nginx"), ACTOR)


def test_reconcile_adopts_what_runs_and_ends_what_does_not(node: Namespace) -> None:
    container = run(node, "sleep", "300")
    # A worker killed between the start and the row.
    Container.objects.filter(pk=container.pk).update(state="created", pid=None)
    assert any("runs" in line for line in reconcile())
    container.refresh_from_db()
    assert container.state == Container.State.RUNNING
    # A row whose container went behind everybody's back.
    host_module.host().containers.stop(container.uid, container.generation, 9, 0)
    eventually(lambda: Container.objects.get(pk=container.pk).state == "exited")
    assert reconcile() == []


def test_restart_rename_and_removal(node: Namespace) -> None:
    container = run(node, "sleep", "300", name="before")
    containers.container_rename(container, "after", ACTOR)
    done(containers.container_restart(container, ACTOR))
    container.refresh_from_db()
    assert (container.name, container.generation, container.state) == ("after", 2, "running")
    with pytest.raises(WrongState):
        containers.container_remove(container, ACTOR)
    done(containers.container_remove(container, ACTOR, force=True))
    assert not Container.objects.filter(pk=container.pk).exists()
    assert reconcile() == []
