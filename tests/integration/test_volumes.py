"""Volumes with real containers: copy-up, sharing, tmpfs, folders of the host, removal, pruning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.conf import settings

from engine.config import EngineConfig
from engine.containers.options import HostOptions, Mount
from engine.errors import Conflict, InvalidInput, NotFound, PolicyDenied, Unsupported
from engine.models import Container, Event, Namespace, Volume
from engine.services import containers, volumes
from engine.services.work import volumes as volumes_work
from engine.services.work.reconcile import reconcile
from tests.services_home import ACTOR, build, done, ended, eventually, failed, log_of, run

pytestmark = pytest.mark.django_db(transaction=True)

SEEDED = """FROM node
RUN mkdir -p /seeded && echo one > /seeded/file && chown -R 7:8 /seeded && chmod 750 /seeded
VOLUME /seeded
"""


def mounts(*found: Mount, **more: object) -> HostOptions:
    return HostOptions(mounts=found, **more)  # type: ignore[arg-type]


def files(volume: Volume) -> Path:
    return volumes_work.store().data(volume.key.hex)


def allow(config: EngineConfig, *folders: Path) -> None:
    ceiling = {"bind_paths": [str(folder) for folder in folders]}
    (config.home / "ceiling.json").write_text(json.dumps(ceiling))


def test_an_anonymous_volume_is_filled_and_goes_with_its_container(node: Namespace) -> None:
    _, error = build(node, SEEDED, tag="seeded")
    assert error is None
    first = run(node, "sh", "-c", "stat -c %u:%g:%a /seeded; cat /seeded/file", image="seeded")
    assert ended(first) == 0
    assert log_of(first) == "7:8:750\none\n"
    (volume,) = Volume.objects.all()
    assert volume.anonymous and len(volume.name) == 64
    (files(volume) / "file").write_text("two\n")
    done(containers.container_start(first, ACTOR))
    assert ended(first) == 0
    assert log_of(first).endswith("two\n")
    with pytest.raises(Conflict, match=first.uid):
        volumes.volume_remove(volume, ACTOR)
    # Another container borrows it, and keeps it.
    second = run(node, "cat", "/seeded/file", host=HostOptions(volumes_from=(f"{first.name}:ro",)))
    assert ended(second) == 0 and log_of(second) == "two\n"
    done(containers.container_remove(first, ACTOR, volumes=True))
    assert files(volume).exists()
    done(containers.container_remove(second, ACTOR))
    assert Volume.objects.filter(pk=volume.pk).exists(), "without volumes they stay"
    result = done(volumes.volumes_prune(node, ACTOR)).result
    assert result == {"volumes": [volume.name], "bytes": 4}
    assert not files(volume).parent.exists()


def test_rm_takes_anonymous_volumes_and_leaves_named_ones(node: Namespace) -> None:
    host = mounts(Mount("volume", "/data", name="kept"))
    made = run(
        node,
        "sh",
        "-c",
        "echo x > /data/x; echo y > /own/y",
        host=host,
        volumes=("/own",),
        auto_remove=True,
    )
    while Container.objects.filter(pk=made.pk).exists():
        pass
    (volume,) = Volume.objects.all()
    assert volume.name == "kept" and (files(volume) / "x").read_text() == "x\n"
    actions = [
        (event.action, event.actor_id == "kept") for event in Event.objects.filter(type="volume")
    ]
    assert sorted(actions) == sorted(
        [(action, named) for action in ("create", "mount", "unmount") for named in (True, False)]
        + [("destroy", False)]
    )
    assert done(volumes.volumes_prune(node, ACTOR)).result["volumes"] == []
    assert done(volumes.volumes_prune(node, ACTOR, all=True)).result["volumes"] == ["kept"]


def test_read_only_nocopy_and_a_volume_two_have(node: Namespace) -> None:
    host = mounts(
        Mount("volume", "/etc", name="empty", no_copy=True),
        Mount("volume", "/bin2", name="shared"),
    )
    first = run(node, "sh", "-c", "ls /etc | wc -l; echo x > /bin2/x", host=host)
    assert ended(first) == 0
    host = mounts(Mount("volume", "/there", name="shared", read_only=True))
    second = run(node, "sh", "-c", "cat /there/x; echo y > /there/y", host=host)
    assert ended(second) == 1
    assert log_of(second).splitlines()[0] == "x"
    assert "Read-only" in log_of(second)
    assert [volumes.users(volume) for volume in volumes.listed(node)] == [1, 2]
    volumes_work.measure_changed()
    found = volumes.find_volume(node, "shared")
    assert volumes.usage(found).size == 2
    # Nobody had it since: it is left alone until somebody does.
    at = volumes.usage(found).at
    volumes_work.measure_changed()
    assert volumes.usage(volumes.find_volume(node, "shared")).at == at
    (files(found) / "more").write_text("more")
    done(containers.container_start(second, ACTOR))
    ended(second)

    def measured() -> bool:
        volumes_work.measure_changed()  # one that took long is left alone for a while
        return volumes.usage(volumes.find_volume(node, "shared")).size == 6

    eventually(measured)


def test_tmpfs_mounts_and_volumes(node: Namespace) -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=64k,uid=7"}
    volume = volumes.volume_create(node, "quick", options=options)
    host = mounts(
        Mount("volume", "/quick", name="quick"),
        Mount("tmpfs", "/one", options=("size=32k", "mode=700")),
        tmpfs={"/two": "exec"},
    )
    script = "grep -E ' /(quick|one|two) ' /proc/mounts; stat -c %u /quick; cat"
    first = run(node, "sh", "-c", script, host=host, open_stdin=True)
    second = run(node, "touch", "/quick/seen", host=mounts(Mount("volume", "/quick", name="quick")))
    assert ended(second) == 0
    assert files(volume).is_mount() and (files(volume) / "seen").exists()
    done(containers.container_kill(first, ACTOR))
    ended(first)
    containers_left = [line for line in log_of(first).splitlines() if line.startswith("tmpfs")]
    assert "size=64k" in containers_left[0] and "uid=7" in containers_left[0]
    assert "size=32k,mode=700" in containers_left[1] and "noexec" in containers_left[1]
    assert "noexec" not in containers_left[2] and "nosuid" in containers_left[2]
    for _ in range(500):
        if not files(volume).is_mount():
            break
    volumes_work.let_go(first)
    assert not files(volume).is_mount()


def test_folders_of_the_host_within_the_ceiling(
    node: Namespace, services_home: EngineConfig, tmp_path: Path
) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    for folder in (allowed, secret):
        folder.mkdir()
        (folder / "file").write_text(f"{folder.name}\n")
    (allowed / "out").symlink_to(secret)
    before = (services_home.home / "ceiling.json").read_text()
    try:
        allow(services_home, allowed)
        host = mounts(Mount("bind", "/in", source=str(allowed)))
        made = run(node, "sh", "-c", "cat /in/file; echo new > /in/new; ls /in/out/", host=host)
        assert ended(made) == 1
        assert log_of(made).splitlines()[0] == "allowed"
        assert (allowed / "new").read_text() == "new\n"
        one = mounts(
            Mount("bind", "/f", source=str(allowed / "file"), read_only=True),
            Mount("bind", "/m", source=str(allowed / "made" / "here"), create=True),
        )
        made = run(node, "sh", "-c", "cat /f; echo > /m/x; echo > /f", host=one)
        assert ended(made) == 1
        assert (allowed / "made/here/x").exists() and "Read-only" in log_of(made)
        with pytest.raises(PolicyDenied):
            run(node, "true", host=mounts(Mount("bind", "/in", source=str(secret))))
        # A link is what it leads to, and only root can tell.
        request = containers.ContainerRequest(
            image="node",
            command=("true",),
            host=mounts(Mount("bind", "/in", source=str(allowed / "out"))),
        )
        made, operation = containers.container_create(node, request, ACTOR)
        assert failed(operation)["id"] == "policy-denied"
        done(containers.container_remove(made, ACTOR))
        missing = mounts(Mount("bind", "/in", source=str(allowed / "nothing")))
        request = containers.ContainerRequest(image="node", command=("true",), host=missing)
        made, operation = containers.container_create(node, request, ACTOR)
        assert "bind source path does not exist" in failed(operation)["message"]
        done(containers.container_remove(made, ACTOR))
        options = {"type": "none", "o": "bind", "device": str(allowed)}
        volumes.volume_create(node, "bound", options=options)
        made = run(node, "cat", "/v/file", host=mounts(Mount("volume", "/v", name="bound")))
        assert ended(made) == 0 and log_of(made) == "allowed\n"
        done(containers.container_remove(made, ACTOR))
        done(volumes.volume_remove(volumes.find_volume(node, "bound"), ACTOR))
        assert (allowed / "file").exists()
        with pytest.raises(PolicyDenied):
            volumes.volume_create(node, "out", options={**options, "device": str(secret)})
    finally:
        (services_home.home / "ceiling.json").write_text(before)


def test_names_and_options(namespace: Namespace) -> None:
    made = volumes.volume_create(namespace, "one", labels={"a": "b"})
    assert volumes.volume_create(namespace, "one", labels={"c": "d"}) == made
    for name in ("a", "-ab", "a b", "/abs", "../up", "a\n"):
        with pytest.raises(InvalidInput, match="volume name"):
            volumes.volume_create(namespace, name)
    with pytest.raises(NotFound, match='plugin "nfs" not found'):
        volumes.volume_create(namespace, "two", driver="nfs")
    with pytest.raises(InvalidInput, match='invalid option: "foo"'):
        volumes.volume_create(namespace, "two", options={"foo": "bar"})
    with pytest.raises(InvalidInput, match='missing required option: "device"'):
        volumes.volume_create(namespace, "two", options={"type": "tmpfs"})
    with pytest.raises(Unsupported):
        volumes.volume_create(namespace, "two", options={"type": "nfs", "device": ":/x"})
    assert volumes.prunable(namespace, all=True, label=["a=b"]) == [made]
    assert volumes.prunable(namespace, all=True, label_not=["a"]) == []
    assert volumes.prunable(namespace, all=False) == []
    done(volumes.volume_remove(made, ACTOR))
    with pytest.raises(NotFound):
        volumes.find_volume(namespace, "one")


def test_what_a_killed_worker_left_is_taken_away(namespace: Namespace) -> None:
    store = volumes_work.store()
    stray = store.make("0" * 32)
    half = settings.ENGINE.volumes_dir / ("." + "1" * 32)
    half.mkdir()
    (half / "file").touch()
    volume = volumes.volume_create(namespace, "mine")
    store.make(volume.key.hex)
    reconcile()
    assert not stray.parent.exists() and not half.exists()
    assert files(volume).exists()
    done(volumes.volume_remove(volume, ACTOR))
