"""Case 12: an image's WORKDIR, USER file or volume target that is a link cannot reach the host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import InvalidInput, RuntimeFailed
from engine.runtime.spec import Mount, ProcessSpec
from engine.runtime.steps import Step, run_step
from engine.runtime.users import resolve_user
from tests.machine import Machine
from tests.rootfs import GROUP, PASSWD

GHOST = "ghost:x:4711:4711::/ghost:/bin/sh\n"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A folder of the host that images point at."""
    made = tmp_path / "secret"
    made.mkdir()
    (made / "passwd").write_text(GHOST)
    (made / "group").write_text("ghosts:x:4711:\n")
    (made / "key").write_text("key")
    return made


def unchanged(secret: Path) -> bool:
    names = {path.name for path in secret.iterdir()}
    return names == {"passwd", "group", "key"} and (secret / "key").read_text() == "key"


def out(secret: Path, name: str = "") -> list[str]:
    """The host's path in the spellings a link may use."""
    path = str(secret / name)
    return [path, "../" * 40 + path.lstrip("/"), f"/proc/self/root{path}", f"/proc/1/root{path}"]


@pytest.mark.parametrize("spelling", range(4))
@pytest.mark.parametrize("file", ["passwd", "group"])
def test_user_files_that_are_links(tmp_path: Path, secret: Path, file: str, spelling: int) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "proc").symlink_to("/proc")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    (root / "etc" / file).unlink()
    (root / "etc" / file).symlink_to(out(secret, file)[spelling])
    with pytest.raises(InvalidInput):
        resolve_user("ghost" if file == "passwd" else "app:ghosts", root)
    # The same by the folder.
    (root / "etc").rename(root / "old")
    (root / "etc").symlink_to(out(secret)[spelling])
    with pytest.raises(InvalidInput):
        resolve_user("ghost" if file == "passwd" else "0:ghosts", root)


def test_user_files_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    (tmp_path / "etc/group").mkdir()
    assert resolve_user("7", tmp_path).uid == 7
    (tmp_path / "etc/passwd").unlink()
    os.mknod(tmp_path / "etc/passwd", 0o20666, os.makedev(1, 5))  # /dev/zero has no end
    assert resolve_user("7", tmp_path).uid == 7


def test_a_link_within_the_image_still_works(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/passwd").write_text(PASSWD)
    (tmp_path / "etc/passwd").symlink_to("/usr/passwd")
    assert resolve_user("app", tmp_path).uid == 1000


@pytest.mark.parametrize("spelling", range(4))
def test_volume_targets_that_are_links(machine: Machine, secret: Path, spelling: int) -> None:
    def change(root: Path) -> None:
        (root / "data").symlink_to(out(secret)[spelling])
        (root / "deep").symlink_to(out(secret.parent)[spelling])

    id = machine.create(
        "ls -A /data /deep/secret; echo x > /data/x; echo y > /deep/secret/y",
        chain=machine.derive(change),
        volumes=("/data", "/deep/secret"),
    )
    try:
        machine.start(id)
    except RuntimeFailed as error:  # the runtime may refuse such a target
        assert "secret" in str(error) or "proc" in str(error)
    else:
        machine.finish(id)
        text = machine.log(machine.directory(id).log)
        assert b"key" not in text and b"ghost" not in text
    assert unchanged(secret)
    for at in ("/data", "/deep/secret"):
        for path in machine.volume(id, at).rglob("*"):
            assert path.name not in ("key", "passwd")


def test_links_inside_a_volumes_content_stay_links(machine: Machine, secret: Path) -> None:
    def change(root: Path) -> None:
        (root / "data").mkdir()
        (root / "data/link").symlink_to(secret / "key")
        (root / "data/folder").symlink_to(secret)

    id = machine.create("cat /data/link", chain=machine.derive(change), volumes=("/data",))
    machine.start(id)
    assert machine.finish(id).code != 0
    folder = machine.volume(id, "/data")
    assert (folder / "link").is_symlink() and (folder / "folder").is_symlink()
    assert unchanged(secret)


@pytest.mark.parametrize("spelling", range(4))
def test_a_workdir_that_is_a_link(machine: Machine, secret: Path, spelling: int) -> None:
    def change(root: Path) -> None:
        (root / "work").symlink_to(out(secret)[spelling])

    for workdir in ("/work", "/work/new"):
        id = machine.create(
            "echo x > here; cat key", chain=machine.derive(change), working_dir=workdir
        )
        try:
            machine.start(id)
        except RuntimeFailed as error:  # the runtime may refuse such a folder
            assert "work" in str(error) or "cwd" in str(error)
        else:
            machine.finish(id)
            assert machine.log(machine.directory(id).log).count(b"No such file") == 1
        assert unchanged(secret)


@pytest.mark.parametrize("spelling", range(4))
def test_files_we_mount_over_links(machine: Machine, secret: Path, spelling: int) -> None:
    def change(root: Path) -> None:
        (root / "etc").mkdir(mode=0o755)
        for name, target in (("hosts", "key"), ("resolv.conf", "passwd"), ("hostname", "group")):
            (root / "etc" / name).symlink_to(out(secret, target)[spelling])

    chain = machine.derive(change)
    id = machine.create("cat /etc/hosts; echo x > /etc/hosts", chain=chain)
    try:
        machine.start(id)
    except RuntimeFailed as error:
        assert "proc" in str(error)
    else:
        machine.finish(id)
        assert b"localhost" in machine.log(machine.directory(id).log)
    assert unchanged(secret)


@pytest.mark.parametrize("spelling", range(2))
def test_mount_points_of_a_step_over_links(machine: Machine, secret: Path, spelling: int) -> None:
    def change(upper: Path) -> None:
        (upper / "cache").symlink_to(out(secret, "new/deep")[spelling])

    key, root = machine.scratch(machine.derive(change))
    code = run_step(
        machine.runtime,
        Step(
            id="links",
            rootfs=root,
            process=ProcessSpec(args=("/bin/touch", "/cache/x")),
            mounts=(Mount("tmpfs", "/cache", "tmpfs", ()),),
        ),
        lambda stream, data: None,
    )
    machine.snapshots.unmount(root)
    assert code == 0 and unchanged(secret)
    left = [path.name for path in machine.snapshots.upper(key).rglob("*")]
    machine.snapshots.remove(key)
    assert "x" not in left and "deep" not in left
