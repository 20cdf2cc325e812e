"""What people and registries do wrong: a typed error with a sentence and a hint at the right
place, nothing half made, and the next correct try works. (`namespace` checks after each test that
rows, disk and kernel agree.)

Longer than other modules because it is one list: each mistake stands once, beside its neighbours,
and they share the fixtures of one home."""

from __future__ import annotations

import io
import os
import secrets
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.content import Ingest
from engine.errors import (
    DockerfileError,
    InvalidInput,
    InvalidReference,
    NameTaken,
    NoSpace,
    NotFound,
    QuaysideError,
    Unsupported,
)
from engine.models import Build, Container, Image, Namespace, Operation, Tag, Upload
from engine.network.spec import PortBinding
from engine.oci.digest import Digest
from engine.runtime import cgroups
from engine.services import builds, containers, images, operations, uploads
from engine.services.work import builds as builds_work
from engine.services.work.host import host
from tests.registry import PushedImage, RegistryServer, push_image, tar_of
from tests.registry_faults import FaultyRegistry, faulty_registry
from tests.services_home import (
    ACTOR,
    background,
    build,
    built,
    done,
    ended,
    events,
    eventually,
    failed,
    log_of,
    output,
    run,
    running_home,
    settle,
    step_states,
    team,
    upload,
    work,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def faulty(busybox_registry: RegistryServer) -> Iterator[FaultyRegistry]:
    """A registry of its own name, sound until told otherwise."""
    with faulty_registry(busybox_registry.address) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def services_home(
    busybox_registry: RegistryServer,
    faulty: FaultyRegistry,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[EngineConfig]:
    with running_home(
        tmp_path_factory.mktemp("bad") / "home",
        mirrors={"docker.io": (busybox_registry.url,)},
        insecure_registries=frozenset({faulty.address}),
    ) as config:
        yield config


@pytest.fixture
def sound(faulty: FaultyRegistry) -> Iterator[FaultyRegistry]:
    yield faulty
    faulty.clear()


def assert_says(error: dict[str, Any] | None, id: str, *words: str, **context: Any) -> None:
    """Kind, words of its sentence, and context; a hint always."""
    assert error is not None
    assert error["id"] == id, error
    assert error["hint"], error
    for word in words:
        assert word in error["message"], error
    assert {key: error["context"].get(key) for key in context} == context, error


# Dockerfiles


@pytest.mark.parametrize(
    ("dockerfile", "line", "end", "words"),
    [
        ("FROM node\nRUNN echo\n", 2, 2, "unknown instruction: RUNN"),
        ("FROM node\n\nCOPY \\\n  here\n", 3, 4, "COPY needs a source and a destination"),
        ("# nothing\nRUN true\n", 2, 2, "FROM"),
        ('FROM node\nENV A="b\n', 2, 2, ""),
        ("FROM node\nRUN <<EOF\ntrue\n", 2, 2, "EOF"),
        ("FROM node\nEXPOSE eighty\n", 2, 2, "not a port: eighty"),
        ("FROM node\nCOPY --link a b\n", 2, 2, "not supported"),
        ("FROM Node_:x:y\n", 1, 1, "Node_:x:y"),
    ],
)
def test_a_syntax_error_is_told_before_anything_is_queued(
    namespace: Namespace, dockerfile: str, line: int, end: int, words: str
) -> None:
    with pytest.raises((DockerfileError, Unsupported)) as caught:
        builds.build_create(namespace, actor=ACTOR, tag="app", dockerfile=dockerfile)
    error = caught.value
    assert (error.context["line"], error.context["end_line"]) == (line, end)
    assert words in error.message
    assert error.context["source"] == "\n".join(dockerfile.splitlines()[line - 1 : end])
    assert not Build.objects.exists()
    assert not Operation.objects.exists()


def test_a_syntax_error_in_what_was_uploaded_is_told_at_its_line(node: Namespace) -> None:
    made, error = build(node, upload=upload(node, {"Dockerfile": "FROM node\nRUNN echo\n"}))
    assert made.state == Build.State.FAILED
    assert_says(error, "dockerfile", "RUNN", line=2, end_line=2, source="RUNN echo")
    assert made.dockerfile == "FROM node\nRUNN echo\n", "the page shows the line in its place"
    assert events(made, "failed")[0]["error"] == error
    # Corrected in the editor, the source that was uploaded is still there.
    again, operation = builds.build_again(made, ACTOR, dockerfile="FROM node\nRUN echo\n")
    done(operation)
    again.refresh_from_db()
    assert again.state == Build.State.DONE


def test_an_unknown_image_in_from(node: Namespace) -> None:
    made, error = build(node, "ARG A\nFROM nosuch:image\nRUN true\n")
    assert_says(error, "registry-not-found", "nosuch:image", line=2, source="FROM nosuch:image")
    assert step_states(made) == {"FROM nosuch:image": "failed", "RUN true": ""}
    assert not Tag.objects.filter(repository="docker.io/library/nosuch").exists()
    built(node, "FROM node\nRUN true\n")


def test_a_failing_run_keeps_its_output_and_what_was_done_before_it(node: Namespace) -> None:
    good = "FROM node\nRUN echo first > /first\n"
    bad = good + "RUN echo seen; \\\n  echo heard >&2; \\\n  exit 3\nRUN echo never\n"
    made, error = build(node, bad)
    assert_says(error, "step-failed", "code 3", code=3, line=3, end_line=5)
    assert sorted(output(made).split()) == ["heard", "seen"]
    assert list(step_states(made).values()) == ["cached", "built", "failed", ""]
    assert not Tag.objects.filter(repository="docker.io/library/app").exists()
    settle()

    mended = built(node, bad.replace("exit 3", "exit 0"))
    assert list(step_states(mended).values()) == ["cached", "cached", "built", "built"]


@pytest.mark.parametrize(
    ("dockerfile", "id", "words", "context"),
    [
        ("USER ghost\nRUN true", "invalid-input", "ghost", {"line": 3, "field": "user"}),
        ("WORKDIR /etc/passwd", "build-context", "/etc/passwd", {"line": 2}),
        ('RUN ["/bin/nosuch"]', "step-failed", "127", {"line": 2, "code": 127}),
        ("RUN nosuch", "step-failed", "127", {"line": 2, "code": 127}),
        ('RUN ["/etc/passwd"]', "step-failed", "126", {"line": 2, "code": 126}),
        ("COPY nosuch /", "build-context", "nosuch", {"line": 2}),
        ("COPY --from=nosuch / /", "registry-not-found", "nosuch", {"line": 2}),
        ("COPY ../../etc/passwd /", "build-context", "passwd", {"line": 2}),
    ],
)
def test_steps_that_cannot_be_done(
    node: Namespace, dockerfile: str, id: str, words: str, context: dict[str, Any]
) -> None:
    _, error = build(node, f"FROM node\n{dockerfile}\n")
    assert_says(error, id, words, **context)


def test_a_target_that_is_no_stage(node: Namespace) -> None:
    with pytest.raises(NotFound, match="no stage two") as caught:
        builds.build_create(node, actor=ACTOR, dockerfile="FROM node AS one\n", target="two")
    assert (caught.value.hint, caught.value.context["field"]) == ("it has one", "target")
    assert not Build.objects.exists()


def test_names_that_cannot_be(namespace: Namespace) -> None:
    for tag in ("Not A Name", "UPPER", "a" * 300, f"app@sha256:{'0' * 64}"):
        with pytest.raises(InvalidInput) as caught:
            builds.build_create(namespace, actor=ACTOR, tag=tag, dockerfile="FROM node\n")
        assert caught.value.hint or caught.value.context["field"] == "tag"
    with pytest.raises(InvalidInput, match="nothing to build"):
        builds.build_create(namespace, actor=ACTOR, tag="app")
    with pytest.raises(InvalidInput, match="build argument"):
        builds.build_create(
            namespace, actor=ACTOR, tag="app", dockerfile="FROM node\n", args={"1 2": ""}
        )
    with pytest.raises(InvalidReference):
        images.image_pull(namespace, "http://node", ACTOR)
    assert not Build.objects.exists()


# Sources


def test_a_source_without_a_dockerfile(node: Namespace) -> None:
    made, error = build(node, upload=upload(node, {"README": "nothing here\n"}))
    assert_says(error, "not-found", "Dockerfile", path="Dockerfile", field="dockerfile_path")
    _, error = build(
        node, upload=upload(node, {"Dockerfile": "FROM node\n"}), dockerfile_path="x/Dockerfile"
    )
    assert_says(error, "not-found", "x/Dockerfile", path="x/Dockerfile")
    # The source is kept: a Dockerfile written in the editor is enough.
    again, operation = builds.build_again(made, ACTOR, dockerfile="FROM node\nCOPY README /\n")
    done(operation)
    again.refresh_from_db()
    assert again.state == Build.State.DONE


def _archive(*entries: tarfile.TarInfo, data: bytes = b"") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for entry in entries:
            entry.size = len(data) if entry.type == tarfile.REGTYPE else 0
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (_archive(_entry("../outside"), data=b"x"), "../outside"),
        (_archive(_entry("/etc/outside"), data=b"x"), "/etc/outside"),
        (_archive(_entry("l", tarfile.SYMTYPE, "/etc"), _entry("l/outside"), data=b"x"), "l"),
        (_archive(_entry("hard", tarfile.LNKTYPE, "/etc/passwd")), "hard"),
        (_archive(_entry("device", tarfile.CHRTYPE)), "device"),
        (_archive(_entry("Dockerfile"), data=b"FROM node\n" * 1000)[:2048], "incomplete"),
        (b"not an archive at all" * 100, "archive"),
    ],
)
def test_an_archive_that_is_unsafe_or_broken(node: Namespace, archive: bytes, words: str) -> None:
    sent = upload(node, archive)
    made, error = build(node, upload=sent)
    assert_says(error, "build-context", words)
    assert not Path("/etc/outside").exists()
    folder = builds_work.folder_of(made)
    assert sorted(path.name for path in folder.iterdir()) == ["log.jsonl"]
    built(node, upload=upload(node, {"Dockerfile": "FROM node\n"}))


def test_uploads_that_are_incomplete_or_too_much(namespace: Namespace) -> None:
    with pytest.raises(InvalidInput, match="not an archive"):
        uploads.upload_create(namespace, 1, "picture.png", 10)
    made = uploads.upload_create(namespace, 1, "app.tar", 10)
    uploads.upload_append(made, 0, b"12345")
    with pytest.raises(InvalidInput, match="more bytes"):
        uploads.upload_append(made, 5, b"678901")
    with pytest.raises(InvalidInput, match="not complete"):
        builds.build_create(namespace, actor=ACTOR, upload=made)
    uploads.upload_append(made, 5, b"67890")
    assert uploads.upload_finish(made).complete
    assert Upload.objects.get().received == 10


# Registries


@pytest.fixture
def pushed(busybox_registry: RegistryServer) -> PushedImage:
    """An image nobody has pulled yet, as `test/fresh`."""
    layers = [tar_of({"a": os.urandom(300_000)}), tar_of({"b": os.urandom(1000)})]
    return push_image(busybox_registry, "test/fresh", layers=layers, config={"Cmd": ["a"]})


@pytest.mark.parametrize(
    ("status", "headers", "id", "hint"),
    [
        (401, {"WWW-Authenticate": 'Basic realm="here"'}, "registry-unauthorized", "sign in"),
        (404, {}, "registry-not-found", "spelling"),
        (429, {"Retry-After": "60"}, "registry-rate-limited", "60 s"),
        (500, {}, "registry-unavailable", "try again"),
    ],
)
def test_a_registry_that_refuses(
    namespace: Namespace,
    sound: FaultyRegistry,
    pushed: PushedImage,
    status: int,
    headers: dict[str, str],
    id: str,
    hint: str,
) -> None:
    name = f"{sound.address}/test/fresh"
    sound.rule("/manifests/", status=status, headers=headers)
    error = failed(images.image_pull(namespace, name, ACTOR))
    assert_says(error, id, sound.address)
    assert hint in error["hint"]
    # The same in the middle of a build, at its line.
    _, error_of_build = build(namespace, f"FROM {name}\n")
    assert_says(error_of_build, id, sound.address, line=1, source=f"FROM {name}")
    assert not Image.objects.exists()
    settle()

    sound.clear()
    done(images.image_pull(namespace, name, ACTOR))
    assert images.find_image(namespace, name).digest == pushed.config


@pytest.mark.parametrize("fault", [{"corrupt": True}, {"truncate": 100}])
def test_a_blob_that_is_damaged(
    namespace: Namespace, sound: FaultyRegistry, pushed: PushedImage, fault: dict[str, Any]
) -> None:
    name = f"{sound.address}/test/fresh"
    sound.rule(f"/blobs/{pushed.layers[0]}", **fault)
    error = failed(images.image_pull(namespace, name, ACTOR))
    assert_says(error, "content-corrupt", pushed.layers[0])
    assert not Image.objects.exists()
    assert not host().content.has(Digest.parse(pushed.layers[0]))
    # What ended early may go on another time, the other layer too; what is wrong is thrown away.
    settle(but=["part of a blob"])
    if "corrupt" in fault:
        with _ingest(pushed) as part:
            assert part.offset == 0

    sound.clear()
    done(images.image_pull(namespace, name, ACTOR))
    assert host().content.has(Digest.parse(pushed.layers[0]))


def _ingest(pushed: PushedImage) -> Ingest:
    digest = Digest.parse(pushed.layers[0])
    return host().content.ingest(f"layer-{digest}", digest, pushed.sizes[0])


def test_a_pull_that_is_cancelled_goes_on_where_it_was(
    namespace: Namespace, sound: FaultyRegistry, pushed: PushedImage
) -> None:
    name = f"{sound.address}/test/fresh"
    sound.rule(f"/blobs/{pushed.layers[0]}", rate=100_000)
    operation = images.image_pull(namespace, name, ACTOR)
    assert images.image_pull(namespace, name, ACTOR) == operation, "two at once are one"
    with background(operation):
        eventually(lambda: _arrived(operation, pushed.layers[0]) > 0)
        operations.cancel(operation)
    assert operation.state == Operation.State.CANCELLED
    assert_says(operation.error, "cancelled")
    assert not Image.objects.exists()
    settle(but=["part of a blob"])

    sound.clear()
    done(images.image_pull(namespace, name, ACTOR))
    (asked,) = sound.requests(f"/blobs/{pushed.layers[0]}")
    assert asked.headers.get("Range", "").startswith("bytes="), "what had come was kept"


def _arrived(operation: Operation, digest: str) -> int:
    operation.refresh_from_db()
    layers = operation.progress.get("layers", [])
    return sum(layer["current"] for layer in layers if layer["digest"] == digest)


# Builds that are stopped


def test_a_build_that_is_cancelled_in_the_middle_of_a_run(node: Namespace) -> None:
    dockerfile = "FROM node\nRUN echo first > /first\nRUN echo begun; sleep 300 & wait\n"
    made, operation = builds.build_create(node, actor=ACTOR, tag="app", dockerfile=dockerfile)
    top = f"/{host().config.cgroup_parent}"

    def processes() -> list[int]:
        steps = [name for name in cgroups.children(top) if name.startswith("step-")]
        return [pid for name in steps for pid in cgroups.pids(f"{top}/{name}")]

    with background(operation):
        eventually(lambda: "begun" in output(made) if _has_log(made) else False, 20)
        assert processes()
        asked = time.monotonic()
        builds.build_cancel(made, ACTOR)
        eventually(lambda: not processes())
        assert time.monotonic() - asked < 3
    made.refresh_from_db()
    assert (made.state, operation.state) == (Build.State.CANCELLED, Operation.State.CANCELLED)
    assert list(step_states(made).values()) == ["cached", "built", "cancelled"]
    assert events(made)[-1]["t"] == "cancelled"
    settle()

    mended = built(node, dockerfile.replace("sleep 300", "true"))
    assert list(step_states(mended).values()) == ["cached", "cached", "built"]


def _has_log(made: Build) -> bool:
    return (builds_work.folder_of(made) / "log.jsonl").exists()


def test_a_build_that_is_cancelled_before_it_began(node: Namespace) -> None:
    made, operation = builds.build_create(node, actor=ACTOR, tag="app", dockerfile="FROM node\n")
    builds.build_cancel(made, ACTOR)
    work(operation)
    made.refresh_from_db()
    assert (made.state, operation.state) == (Build.State.CANCELLED, Operation.State.CANCELLED)
    assert not _has_log(made)


# Containers


def test_a_name_that_is_taken(node: Namespace) -> None:
    one = run(node, "sleep", "60", name="one")
    two = run(node, "sleep", "60", name="two")
    before = Container.objects.count()
    with pytest.raises(NameTaken, match="one") as caught:
        run(node, "true", name="one")
    assert caught.value.context["field"] == "name"
    with pytest.raises(NameTaken, match="one"):
        containers.container_rename(two, "one", ACTOR)
    with pytest.raises(InvalidInput):
        containers.container_rename(two, "not a name", ACTOR)
    two.refresh_from_db()
    assert (two.name, Container.objects.count()) == ("two", before)
    done(containers.container_remove(one, ACTOR, force=True))
    containers.container_rename(two, "one", ACTOR)
    assert containers.find_container(node, "one") == two


@pytest.mark.parametrize("holder", ["container", "program"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_that_is_taken(node: Namespace, holder: str, protocol: Any) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as program:
        program.bind(("127.0.0.1", 0))
        port = program.getsockname()[1]
        binding = PortBinding(80, protocol, "127.0.0.1", port)
        if holder == "program":
            if protocol == "tcp":
                program.listen()
        else:
            program.close()
            first = run(node, "sleep", "60", name="first", ports=(binding,))
        request = containers.ContainerRequest(
            image="node", command=("sleep", "60"), name="second", ports=(binding,)
        )
        second, operation = containers.container_run(node, request, ACTOR)
        error = failed(operation)
        where = {"address": "127.0.0.1", "port": port, "protocol": protocol}
        assert_says(error, "port-taken", f"127.0.0.1:{port}/{protocol}", **where)
        second.refresh_from_db()
        assert (second.state, second.error) == (Container.State.CREATED, error)
        settle(but=["operation"])
    if holder == "container":
        done(containers.container_remove(first, ACTOR, force=True))
    done(containers.container_start(second, ACTOR))
    second.refresh_from_db()
    assert (second.state, second.error) == (Container.State.RUNNING, None)
    assert second.ports.get().published_port == port


@pytest.mark.parametrize(
    ("options", "words", "context"),
    [
        ({"user": "ghost"}, "ghost", {"field": "user"}),
        ({"user": "app:ghosts"}, "ghosts", {"field": "user"}),
        ({"user": "a:b:c"}, "user a", {"field": "user"}),
        ({"command": ("nosuch",)}, "image: nosuch", {"code": 127, "field": "command"}),
        ({"command": ("/bin/nosuch", "-x")}, "nosuch", {"code": 127}),
        ({"command": ("/etc/passwd",)}, "executed: /etc/passwd", {"code": 126}),
        ({"command": ("/etc",)}, "/etc", {"code": 126}),
        ({"working_dir": "/etc/passwd"}, "/etc/passwd", {"field": "working_dir"}),
    ],
)
def test_what_the_image_does_not_have(
    node: Namespace, options: dict[str, Any], words: str, context: dict[str, Any]
) -> None:
    request = containers.ContainerRequest(
        image="node", **{"command": ("sleep", "60"), "name": "it", **options}
    )
    made, operation = containers.container_run(node, request, ACTOR)
    assert_says(failed(operation), "invalid-input", words, **context)
    made.refresh_from_db()
    assert made.state == Container.State.CREATED
    settle()
    done(containers.container_remove(made, ACTOR))
    run(node, "sleep", "60", name="it")


def test_a_working_directory_that_is_missing_is_made(node: Namespace) -> None:
    """As Docker does it."""
    container = run(node, "pwd", working_dir="/not/there/yet")
    assert ended(container) == 0
    assert log_of(container) == "/not/there/yet\n"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": "no spaces here"}, "name"),
        ({"env": ("=x",)}, "env"),
        ({"env": ("A=\0",)}, "env"),
        ({"ports": (PortBinding(80),), "network": "none"}, "ports"),
        ({"ports": (PortBinding(80, "tcp", "0.0.0.0", 81),) * 2}, "ports"),
        ({"image": "nosuch"}, "image"),
        ({"image": "Not An Image"}, "image"),
        ({"network": "nosuch"}, "network"),
        ({"stop_signal": "SIGNOT"}, "stop_signal"),
        ({"command": ("a\0b",)}, "command"),
        ({"hostname": "no host"}, "hostname"),
        ({"hostname": "h" * 65}, "hostname"),
        ({"working_dir": "not/absolute"}, "working_dir"),
    ],
)
def test_requests_that_cannot_be_met_leave_no_row(
    node: Namespace, options: dict[str, Any], field: str
) -> None:
    request = containers.ContainerRequest(
        **{"image": "node", "command": ("sleep", "60"), **options}
    )
    with pytest.raises(QuaysideError) as caught:
        containers.container_run(node, request, ACTOR)
    assert caught.value.hint
    found = "image" if caught.value.id == "invalid-reference" else None
    assert caught.value.context.get("field", found) == field, caught.value.as_dict()
    assert not Container.objects.exists()


# A full disk

ROOM = 16 * 1024 * 1024


@pytest.fixture
def small(busybox_registry: RegistryServer, tmp_path: Path) -> Iterator[Namespace]:
    """A team in a home on a disk of ROOM bytes, with `node` pulled."""
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", home], check=True)
    try:
        with running_home(home, mirrors={"docker.io": (busybox_registry.url,)}):
            teams = team()
            namespace = next(teams)
            done(images.image_pull(namespace, "node", ACTOR))
            yield namespace
            next(teams, None)
    finally:
        subprocess.run(["umount", home], check=True)


def test_a_pull_onto_a_full_disk(small: Namespace, busybox_registry: RegistryServer) -> None:
    names = {"noise": os.urandom(ROOM), "zeros": bytes(ROOM)}  # no room to store, to unpack
    for name, data in names.items():
        push_image(busybox_registry, f"library/{name}", layers=[tar_of({"data": data})])
        free = _free()
        error = failed(images.image_pull(small, name, ACTOR))
        assert_says(error, "no-space", "no space left")
        assert not Tag.objects.filter(repository=f"docker.io/library/{name}").exists()
        settle()
        assert _free() > free - 200_000
    run(small, "true")


@pytest.mark.parametrize(
    ("dockerfile", "size", "line"),
    [
        ("FROM node\nRUN echo seen; cat /dev/zero > /big\n", 1000, 2),
        ("FROM node\nCOPY . /files\n", 5_500_000, 2),  # the files have room, their layer has not
        ("FROM node\nCOPY . /files\nRUN cp -r /files /more\n", 3_500_000, 3),
        ("FROM node\nCOPY . /files\n", 7_500_000, None),  # no room for the source itself
    ],
)
def test_a_build_on_a_full_disk(
    small: Namespace, dockerfile: str, size: int, line: int | None
) -> None:
    sent = upload(small, {"data": secrets.token_hex(size // 2)})
    made, error = build(small, dockerfile, upload=sent)
    assert error is not None
    # The command in RUN may be the one to see it, or we, writing down what it says.
    if error["id"] == "step-failed":
        assert "No space left on device" in output(made)
    else:
        assert_says(error, "no-space")
    assert error["context"].get("line") == line
    assert events(made)[-1] == {"t": "failed", "error": error}
    folder = builds_work.folder_of(made)
    assert {path.name for path in folder.iterdir()} <= {"context", "log.jsonl"}
    settle()
    assert made.upload is not None
    assert (folder / "context").is_dir() != uploads.upload_path(made.upload).exists()
    built(small, "FROM node\nRUN echo good\n")


def test_an_upload_onto_a_full_disk_can_go_on(small: Namespace) -> None:
    piece = os.urandom(4_000_000)
    made = uploads.upload_create(small, 1, "app.tar", None)
    offset = 0
    with pytest.raises(NoSpace) as caught:
        while offset < ROOM:
            offset = uploads.upload_append(made, offset, piece)
    assert caught.value.hint
    assert offset > 0
    made.refresh_from_db()
    assert made.received == offset
    uploads.upload_path(made).unlink()


def test_a_container_that_fills_the_disk(small: Namespace) -> None:
    script = "trap 'exit 5' TERM; cat /dev/zero > /big || echo full; sleep 60 & wait"
    first = run(small, "sh", "-c", script, name="first")
    eventually(lambda: _free() == 0)
    # Another cannot start, and says why.
    request = containers.ContainerRequest(image="node", command=("true",), name="second")
    second, operation = containers.container_run(small, request, ACTOR)
    assert_says(failed(operation), "no-space")
    second.refresh_from_db()
    assert second.state == Container.State.CREATED
    # The full one is stopped all the same, its code is known, and it gives its room back.
    done(containers.container_stop(first, ACTOR, grace=10))
    first.refresh_from_db()
    assert (first.state, first.exit_code) == (Container.State.EXITED, 5)
    done(containers.container_remove(first, ACTOR))
    assert _free() > ROOM // 2
    done(containers.container_start(second, ACTOR))
    assert ended(second) == 0


def _free() -> int:
    status = os.statvfs(host().config.home)
    return status.f_bavail * status.f_bsize
