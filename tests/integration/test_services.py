"""The study notes' tour through the services, without a browser: pull, run, see, stop, start.

Operations run in this process, as the worker would run them; the supervisor is the real one.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.utils import timezone

from engine.containers.layout import ContainerDir
from engine.errors import InvalidInput, NotFound, WrongState
from engine.images.gc import Collected, collect
from engine.images.leases import Leases
from engine.models import BuildCacheEntry, Container, Namespace, Operation, Upload
from engine.network.spec import PortBinding
from engine.services import builds, containers, images
from engine.services.image_transfers import image_load, incoming_new
from engine.services.uploads import upload_path
from engine.services.work.garbage import _referenced
from engine.services.work.host import host
from engine.services.work.reconcile import reconcile, tidy
from tests.services_home import (
    ACTOR,
    answer,
    background,
    done,
    ended,
    eventually,
    failed,
    log_of,
    run,
    upload,
)
from tests.site import free_port

pytestmark = pytest.mark.django_db(transaction=True)


def test_from_a_registry_to_a_page_on_a_port(node: Namespace) -> None:
    port = free_port()
    container = run(
        node,
        *(
            "sh",
            "-c",
            "mkdir -p /www && echo hello > /www/index.html && exec httpd -f -p 80 -h /www",
        ),
        name="web",
        ports=(PortBinding(80, "tcp", "127.0.0.1", port),),
    )
    assert container.state == Container.State.RUNNING
    assert container.ports.get().published_port == port
    eventually(lambda: answer(port) == "hello\n")

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


def test_an_exit_is_written_down_with_its_code(node: Namespace) -> None:
    container = run(node, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert ended(container) == 7
    assert container.state == Container.State.EXITED
    assert container.finished_at is not None
    assert sorted(log_of(container).split()) == ["err", "out"]


def test_rm_takes_the_container_away_after_its_end(node: Namespace) -> None:
    container = run(node, "true", auto_remove=True)
    eventually(lambda: not Container.objects.filter(pk=container.pk).exists())
    eventually(lambda: not ContainerDir(settings.ENGINE, container.uid).settings.exists())


def test_a_removal_killed_between_its_folder_and_its_row_is_ended(node: Namespace) -> None:
    container = run(node, "true")
    assert ended(container) == 0
    eventually(lambda: reconcile() == [])
    host().containers.remove(container.uid)
    assert reconcile() == []
    Container.objects.filter(pk=container.pk).update(
        settings={**container.settings, "auto_remove": True}
    )
    assert reconcile() == [f"container {container.name} had ended and is removed"]
    assert not Container.objects.filter(pk=container.pk).exists()


def test_a_removal_killed_after_its_rows_leaves_nothing(
    node: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = run(node, "true")
    assert ended(container) == 0
    eventually(lambda: reconcile() == [])
    uid = container.uid
    exits = ContainerDir(settings.ENGINE, uid).exits(1)
    container.delete()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("engine.containers.lifecycle.shutil.rmtree", killed)
        host().containers.remove(uid)
    assert exits.exists()
    assert reconcile() == [f"container {uid[:12]} without a row removed"]
    assert not exits.exists() and uid not in host().containers.list_on_disk()


def test_containers_of_one_image_do_not_see_each_other(node: Namespace) -> None:
    first = run(node, "sh", "-c", "echo mine > /data; cat /data", name="first")
    assert ended(first) == 0
    second = run(node, "sh", "-c", "cat /data || echo nothing here", name="second")
    assert ended(second) == 0
    assert "nothing here" in log_of(second)
    done(containers.container_start(first, ACTOR))
    eventually(lambda: log_of(first).count("mine") == 2)


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
    host().containers.stop(container.uid, container.generation, 9, 0)
    eventually(lambda: Container.objects.get(pk=container.pk).state == "exited")
    assert reconcile() == []


def test_restart_rename_and_removal(node: Namespace) -> None:
    container = run(node, "sleep", "300", name="before", stop_signal="SIGKILL")
    containers.container_rename(container, "after", ACTOR)
    done(containers.container_restart(container, ACTOR))
    container.refresh_from_db()
    assert (container.name, container.generation, container.state) == ("after", 2, "running")
    with pytest.raises(WrongState):
        containers.container_remove(container, ACTOR)
    done(containers.container_remove(container, ACTOR, force=True))
    assert not Container.objects.filter(pk=container.pk).exists()
    assert reconcile() == []


def test_a_restart_is_not_the_end_that_rm_waits_for(node: Namespace) -> None:
    container = run(node, "sleep", "300", auto_remove=True, stop_signal="SIGKILL")
    done(containers.container_restart(container, ACTOR))
    container.refresh_from_db()
    assert (container.generation, container.state) == (2, "running")
    done(containers.container_stop(container, ACTOR))
    eventually(lambda: not Container.objects.filter(pk=container.pk).exists())


@pytest.mark.parametrize("name", ["web-", "a..b", "w" * 64])
def test_a_name_that_does_not_resolve_is_a_name_all_the_same(node: Namespace, name: str) -> None:
    container = run(node, "sleep", "300", name=name, stop_signal="SIGKILL")
    assert container.state == "running"


def test_a_stop_signal_that_is_none_is_told_at_once(node: Namespace) -> None:
    """Also the image's: a container that cannot be stopped would come of it."""
    with pytest.raises(InvalidInput, match="no such signal: SIGFOO") as error:
        run(node, "true", stop_signal="SIGFOO")
    assert error.value.context["field"] == "stop_signal"
    image = images.find_image(node, "node")
    image.config["config"]["StopSignal"] = "SIGBAR"
    image.save()
    with pytest.raises(InvalidInput, match="SIGBAR"):
        run(node, "true")
    image.config["config"].pop("StopSignal")
    image.save()


def test_why_a_creation_failed_shows_with_the_container(node: Namespace) -> None:
    request = containers.ContainerRequest(image="node", command=("true",))
    container, operation = containers.container_create(node, request, ACTOR)
    Container.objects.update(settings={**container.settings, "chain": "sha256:" + "0" * 64})
    assert failed(operation)["id"] == "not-found"
    container.refresh_from_db()
    assert container.error == operation.error
    container.delete()


def test_a_build_without_an_open_operation_has_ended(node: Namespace) -> None:
    """Its operation failed before the build began: the row must not wait for ever."""
    build, operation = builds.build_create(node, actor=ACTOR, dockerfile="FROM scratch\n")
    assert reconcile() == []
    Operation.objects.filter(pk=operation.pk).update(state=Operation.State.FAILED, error=None)
    assert reconcile() == [f"build #{build.number} had lost its worker"]
    build.refresh_from_db()
    assert build.state == "failed"
    operation.refresh_from_db()
    operation.delete()


def test_tidying_leaves_what_a_build_waits_for(namespace: Namespace) -> None:
    kept, dropped = (upload(namespace, {"Dockerfile": "FROM scratch\n"}) for _ in range(2))
    build, operation = builds.build_create(namespace, actor=ACTOR, upload=kept)
    old = timezone.now() - timedelta(days=2)
    Upload.objects.update(updated_at=old)
    Session.objects.create(session_key="old", session_data="", expire_date=old)
    tidy()
    assert list(Upload.objects.all()) == [kept]
    assert not upload_path(dropped).exists()
    assert not Session.objects.exists()
    done(operation)
    build.refresh_from_db()
    assert build.state == "done", build.error


def test_tidying_drops_what_nobody_fetched_any_more(namespace: Namespace) -> None:
    """What a killed process was receiving; fresh files and what an operation waits for stay."""
    home = settings.ENGINE.home
    waiting, operation = _incoming(namespace)
    old, fresh = (incoming_new()[1] for _ in range(2))
    half, going = (home / "uploads" / name for name in (".api-half", ".api-going"))
    files = (waiting, old, fresh, half, going)
    for path in files:
        path.write_bytes(b"x")
    ago = (timezone.now() - timedelta(days=2)).timestamp()
    for path in (waiting, old, half):
        os.utime(path, (ago, ago))
    try:
        dropped = tidy()
        assert [path.exists() for path in files] == [True, False, True, False, True]
        assert f"an incoming file nobody waits for dropped: {old.name}" in dropped
        assert "half an upload dropped: .api-half" in dropped
        Operation.objects.filter(pk=operation.pk).update(state=Operation.State.FAILED)
        tidy()
        assert not waiting.exists() and fresh.exists()
    finally:
        for path in files:
            path.unlink(missing_ok=True)
        Operation.objects.filter(pk=operation.pk).delete()


def _incoming(namespace: Namespace) -> tuple[Path, Operation]:
    """A file that came with a request, and the operation that will read it."""
    key, path = incoming_new()
    return path, image_load(namespace, key, ACTOR)


def test_what_a_build_stands_on_is_not_collected(node: Namespace) -> None:
    """Somebody removes the image it began with, and its finished steps are in no image yet."""
    stages = "FROM node AS first\nRUN echo one > /one\nFROM node\nCOPY --from=first /one /\n"
    wait = "RUN touch /waiting; while [ ! -e /go ]; do sleep 0.05; done\n"
    _, operation = builds.build_create(
        node, actor=ACTOR, tag="app", dockerfile=f"{stages}RUN echo two > /two\n{wait}"
    )
    parts = host()

    def waiting() -> list[Path]:
        mounts = [target for _, target in parts.snapshots.mounts()]
        return [target for target in mounts if (target / "waiting").exists()]

    def removed() -> Collected:
        leases = Leases.of(parts.config)
        return collect(parts.content, parts.snapshots, leases, _referenced, grace_seconds=0)

    removed()  # what tests before this one left
    with background(operation):
        eventually(lambda: bool(waiting()))
        try:
            images.find_image(node, "node").delete()
            BuildCacheEntry.objects.all().delete()
            assert removed() == Collected(0, 0, 0)
        finally:
            (waiting()[0] / "go").touch()
    assert operation.state == Operation.State.DONE, operation.error
    container = run(node, "cat", "/one", "/two", image="app")
    assert (ended(container), log_of(container)) == (0, "one\ntwo\n")
