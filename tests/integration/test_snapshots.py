"""The snapshotter's contract, on real overlay mounts; any other implementation must pass it too."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.errors import Conflict, InvalidInput, MountFailed, NameTaken, NotFound, WrongState
from engine.snapshots import OverlaySnapshotter, SnapshotInfo, Snapshotter


@pytest.fixture
def snapshots(tmp_path: Path) -> Iterator[OverlaySnapshotter]:
    snapshots = OverlaySnapshotter(tmp_path / "snapshots")
    yield snapshots
    for _, target in list(snapshots.mounts()):
        snapshots.unmount(target)
    assert list(snapshots.mounts()) == []


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def mounted(snapshots: Snapshotter, key: str, target: Path) -> Iterator[Path]:
    snapshots.mount(key, target)
    try:
        yield target
    finally:
        snapshots.unmount(target)


def commit(snapshots: Snapshotter, name: str, parent: str | None = None, **files: str) -> None:
    snapshots.prepare(f"extract-{name}", parent)
    for file, text in files.items():
        (snapshots.upper(f"extract-{name}") / file).write_text(text)
    snapshots.commit(f"extract-{name}", name)


def test_layers_stack_and_an_upper_holds_only_its_changes(
    snapshots: OverlaySnapshotter, target: Path
) -> None:
    commit(snapshots, "sha256:a", a="1", b="1")
    snapshots.prepare("build-1-2", "sha256:a")
    with mounted(snapshots, "build-1-2", target):
        assert (target / "a").read_text() == "1"
        (target / "b").unlink()
        (target / "c").write_text("2")
    upper = snapshots.upper("build-1-2")
    assert names(upper) == ["b", "c"]
    assert (upper / "b").is_char_device()
    snapshots.commit("build-1-2", "sha256:b")
    snapshots.prepare("container-x", "sha256:b")
    with mounted(snapshots, "container-x", target):
        assert names(target) == ["a", "c"]
    assert snapshots.parent("sha256:b") == "sha256:a"
    assert [path.name for path in snapshots.lowers("container-x")] == ["fs", "fs"]
    assert set(snapshots.walk()) == {
        SnapshotInfo("sha256:a", "committed", None),
        SnapshotInfo("sha256:b", "committed", "sha256:a"),
        SnapshotInfo("container-x", "active", "sha256:b"),
    }


def test_a_commit_is_a_rename(snapshots: OverlaySnapshotter) -> None:
    snapshots.prepare("k", None)
    (snapshots.upper("k") / "file").write_text("x")
    before = (snapshots.upper("k") / "file").stat()
    snapshots.commit("k", "name")
    after = (snapshots.layer("name") / "file").stat()
    assert (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns)
    assert not snapshots.exists("k")
    assert snapshots.exists("name")


def test_committing_to_a_name_that_exists_drops_the_second(snapshots: OverlaySnapshotter) -> None:
    commit(snapshots, "name", file="first")
    commit(snapshots, "name", file="second")
    assert (snapshots.layer("name") / "file").read_text() == "first"
    assert [info.name for info in snapshots.walk()] == ["name"]
    assert snapshots.sweep() == 0


def test_two_containers_of_one_image_do_not_see_each_other(
    snapshots: OverlaySnapshotter, target: Path
) -> None:
    commit(snapshots, "image", file="image")
    for key in ("one", "two"):
        snapshots.prepare(key, "image")
        with mounted(snapshots, key, target):
            assert (target / "file").read_text() == "image"
            (target / "file").write_text(key)
    with mounted(snapshots, "one", target):
        assert (target / "file").read_text() == "one"
    assert (snapshots.layer("image") / "file").read_text() == "image"


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_a_view_is_read_only(snapshots: OverlaySnapshotter, target: Path, layers: int) -> None:
    parent: str | None = None
    for number in range(layers + 1):
        commit(snapshots, f"n{number}", parent, **{f"f{number}": "x"})
        parent = f"n{number}"
    snapshots.view_mount(f"n{layers}", target)
    assert names(target) == [f"f{number}" for number in range(layers + 1)]
    with pytest.raises(OSError, match="Read-only"):
        (target / "new").touch()
    assert list(snapshots.mounts()) == [(f"n{layers}", target)]
    snapshots.unmount(target)


def test_scratch_mounts_empty_and_writable(snapshots: OverlaySnapshotter, target: Path) -> None:
    snapshots.prepare("scratch", None)
    with mounted(snapshots, "scratch", target):
        assert names(target) == []
        assert target.stat().st_mode & 0o7777 == 0o755
        (target / "new").touch()
    assert names(snapshots.upper("scratch")) == ["new"]


def test_the_root_folder_keeps_its_mode_and_owner(
    snapshots: OverlaySnapshotter, target: Path
) -> None:
    snapshots.prepare("k", None)
    os.chown(snapshots.upper("k"), 12, 34)
    snapshots.upper("k").chmod(0o1750)
    snapshots.commit("k", "n")
    snapshots.prepare("container", "n")
    with mounted(snapshots, "container", target):
        status = target.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (12, 34, 0o1750)


def test_125_layers_mount(tmp_path: Path, target: Path) -> None:
    """Below a long home too: absolute paths of this many layers do not fit into mount(2)."""
    snapshots = OverlaySnapshotter(tmp_path / ("long" * 40) / "snapshots")
    parent: str | None = None
    for number in range(125):
        commit(
            snapshots, f"sha256:{number:064x}", parent, **{f"f{number}": "x", "top": f"{number}"}
        )
        parent = f"sha256:{number:064x}"
    snapshots.prepare("container", parent)
    with mounted(snapshots, "container", target):
        assert len(names(target)) == 126
        assert (target / "top").read_text() == "124"
        (target / "f3").write_text("changed")
    assert parent is not None
    snapshots.view_mount(parent, target)
    assert (target / "f3").read_text() == "x"
    snapshots.unmount(target)


def test_mounting_leaves_the_process_where_it_is(
    snapshots: OverlaySnapshotter, target: Path
) -> None:
    before = Path.cwd()
    snapshots.prepare("k", None)
    with mounted(snapshots, "k", target):
        assert Path.cwd() == before


def test_what_others_stand_on_stays(snapshots: OverlaySnapshotter) -> None:
    commit(snapshots, "base", file="x")
    commit(snapshots, "child", "base")
    snapshots.prepare("container", "child")
    for name, by in (("base", "child"), ("child", "container")):
        with pytest.raises(Conflict, match=f"{name} is in use below {by}"):
            snapshots.remove(name)
    for name in ("container", "child", "base", "base"):
        snapshots.remove(name)
    assert list(snapshots.walk()) == []
    assert snapshots.sweep() == 0


def test_what_is_mounted_is_neither_committed_nor_removed(
    snapshots: OverlaySnapshotter, target: Path
) -> None:
    snapshots.prepare("k", None)
    with mounted(snapshots, "k", target):
        assert list(snapshots.mounts()) == [("k", target)]
        with pytest.raises(WrongState, match="is mounted at"):
            snapshots.commit("k", "n")
        with pytest.raises(WrongState, match="is mounted at"):
            snapshots.remove("k")
    snapshots.commit("k", "n")


def test_unmount_is_idempotent_and_follows_no_link(
    snapshots: OverlaySnapshotter, target: Path, tmp_path: Path
) -> None:
    snapshots.prepare("k", None)
    snapshots.mount("k", target)
    (tmp_path / "link").symlink_to(target)
    snapshots.unmount(tmp_path / "link")
    assert list(snapshots.mounts()) == [("k", target)]
    for _ in range(2):
        snapshots.unmount(target)
    snapshots.unmount(tmp_path / "nowhere")
    assert list(snapshots.mounts()) == []


def test_a_busy_target_is_detached_in_the_end(snapshots: OverlaySnapshotter, target: Path) -> None:
    snapshots.prepare("k", None)
    snapshots.mount("k", target)
    with (target / "open").open("w"):
        snapshots.unmount(target)
        assert list(snapshots.mounts()) == []


def test_a_volatile_mount_can_be_repeated(snapshots: OverlaySnapshotter, target: Path) -> None:
    snapshots.prepare("k", None)
    for text in ("one", "two"):
        snapshots.mount("k", target, volatile=True)
        (target / text).touch()
        snapshots.unmount(target)
    with mounted(snapshots, "k", target):
        assert names(target) == ["one", "two"]


def test_metadata_changes_copy_the_whole_file_up(
    snapshots: OverlaySnapshotter, target: Path
) -> None:
    """A layer made of an upper must be complete without what lies below."""
    commit(snapshots, "base", file="content")
    (snapshots.layer("base") / "folder").mkdir()
    snapshots.prepare("k", "base")
    with mounted(snapshots, "k", target):
        (target / "file").chmod(0o600)
        with pytest.raises(OSError, match="cross-device"):
            (target / "folder").rename(target / "moved")
    assert (snapshots.upper("k") / "file").read_text() == "content"


def test_errors_say_what_is_wrong(
    snapshots: OverlaySnapshotter, target: Path, tmp_path: Path
) -> None:
    snapshots.prepare("k", None)
    commit(snapshots, "n")
    with pytest.raises(NameTaken, match="k exists"):
        snapshots.prepare("k", None)
    with pytest.raises(NameTaken, match="n exists"):
        snapshots.prepare("n", None)
    with pytest.raises(NotFound, match="nothing"):
        snapshots.prepare("new", "nothing")
    with pytest.raises(WrongState, match="k is not committed"):
        snapshots.prepare("new", "k")
    with pytest.raises(WrongState, match="n is committed"):
        snapshots.mount("n", target)
    with pytest.raises(WrongState, match="n is committed"):
        snapshots.upper("n")
    with pytest.raises(NotFound):
        snapshots.commit("nothing", "m")
    with pytest.raises(MountFailed, match="No such file"):
        snapshots.mount("k", tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["", "../k", "a/b", ".hidden", "a b", "a\n", "x" * 201, "a\0"])
def test_names_cannot_be_paths(snapshots: OverlaySnapshotter, name: str) -> None:
    for call in (
        lambda: snapshots.exists(name),
        lambda: snapshots.prepare(name, None),
        lambda: snapshots.remove(name),
    ):
        with pytest.raises(InvalidInput, match="no snapshot can be named"):
            call()
    snapshots.prepare("k", None)
    with pytest.raises(InvalidInput, match="no snapshot can be named"):
        snapshots.commit("k", name)


@pytest.mark.parametrize("root", ["relative", "/tmp/a,b", "/tmp/a:b", "/tmp/a b", "/tmp/a\\b"])
def test_a_root_overlay_cannot_take_is_refused(root: str) -> None:
    with pytest.raises(InvalidInput, match="cannot use the folder"):
        OverlaySnapshotter(Path(root))


def test_only_the_owner_reaches_the_layers(snapshots: OverlaySnapshotter, tmp_path: Path) -> None:
    """Layers hold setuid files and device nodes that no user of the host may get at."""
    assert (tmp_path / "snapshots").stat().st_mode & 0o077 == 0


def test_usage_counts_blocks_and_hard_links_once(snapshots: OverlaySnapshotter) -> None:
    snapshots.prepare("k", None)
    empty = snapshots.usage("k")
    upper = snapshots.upper("k")
    (upper / "d").mkdir()
    (upper / "d" / "file").write_bytes(b"x" * 10_000)
    os.link(upper / "d" / "file", upper / "again")
    with (upper / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    (upper / "link").symlink_to("/")
    usage = snapshots.usage("k")
    assert usage.inodes == empty.inodes + 4
    assert 12_288 <= usage.bytes - empty.bytes < 40_000


def test_a_tree_deeper_than_path_max_is_counted_and_removed(
    snapshots: OverlaySnapshotter,
) -> None:
    snapshots.prepare("k", None)
    fd = os.open(snapshots.upper("k"), os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d" * 100, dir_fd=fd)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.symlink("/etc", "link", dir_fd=fd)
    os.close(fd)
    assert snapshots.usage("k").inodes == 302
    snapshots.remove("k")
    assert snapshots.sweep() == 0


def test_remove_follows_no_link(snapshots: OverlaySnapshotter, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    snapshots.prepare("k", None)
    (snapshots.upper("k") / "link").symlink_to(outside)
    (snapshots.upper("k") / "folder").mkdir()
    (snapshots.upper("k") / "folder" / "link").symlink_to(outside / "kept")
    snapshots.remove("k")
    assert (outside / "kept").exists()


def test_sweep_takes_what_killed_processes_left(
    snapshots: OverlaySnapshotter, tmp_path: Path
) -> None:
    commit(snapshots, "n", file="kept")
    snapshots.prepare("k", "n")
    (tmp_path / "snapshots" / "s" / "zzzzz" / "fs").mkdir(parents=True)
    (tmp_path / "snapshots" / "trash" / "yyyyy" / "fs" / "d").mkdir(parents=True)
    assert snapshots.sweep() == 2
    assert snapshots.sweep() == 0
    assert (snapshots.layer("n") / "file").exists()
    assert snapshots.upper("k").is_dir()


def test_a_process_killed_anywhere_leaves_names_whole(tmp_path: Path) -> None:
    root = tmp_path / "snapshots"
    program = f"""
from pathlib import Path
from itertools import count
from engine.snapshots import OverlaySnapshotter
snapshots = OverlaySnapshotter(Path({str(root)!r}))
print("ready", flush=True)
for n in count():
    snapshots.prepare("k%d" % n, "n%d" % (n - 1) if n % 5 else None)
    (snapshots.upper("k%d" % n) / "file").touch()
    snapshots.commit("k%d" % n, "n%d" % n)
    if n % 5 == 4:
        for m in range(n, n - 5, -1):
            snapshots.remove("n%d" % m)
"""
    for attempt in range(5):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.02 + attempt * 0.013)
            child.kill()
        snapshots = OverlaySnapshotter(root)
        snapshots.sweep()
        for info in snapshots.walk():
            assert snapshots.layer(info.name).is_dir()
            if info.kind == "committed":
                assert (snapshots.layer(info.name) / "file").exists()
        while left := [info.name for info in snapshots.walk()]:
            for name in left:
                try:
                    snapshots.remove(name)
                except Conflict:
                    continue
        assert snapshots.sweep() == 0


def test_many_threads_at_once(snapshots: OverlaySnapshotter, tmp_path: Path) -> None:
    commit(snapshots, "base", file="x")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            place = tmp_path / f"target{number}"
            place.mkdir()
            for turn in range(10):
                key = f"k{number}-{turn}"
                snapshots.prepare(key, "base")
                with mounted(snapshots, key, place):
                    (place / "file").write_text(key)
                snapshots.commit(key, f"n{turn}")
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {info.name for info in snapshots.walk()} == {"base", *(f"n{n}" for n in range(10))}
    assert snapshots.sweep() == 0
