"""Layers there and back: tar -> overlay's upper -> tar, against overlayfs and GNU tar."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import Conflict, ContextError, InvalidInput
from engine.oci.digest import Digest
from engine.snapshots import ARCHIVE, OverlaySnapshotter, apply_layer, write_layer
from engine.snapshots.tree import remove_tree
from tests.tars import Member, folder, hardlink, make_tar, member, symlink

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def snapshots(tmp_path: Path) -> Iterator[OverlaySnapshotter]:
    snapshots = OverlaySnapshotter(tmp_path / "snapshots")
    yield snapshots
    for _, target in list(snapshots.mounts()):
        snapshots.unmount(target)


def layer_of(upper: Path) -> bytes:
    out = io.BytesIO()
    stats = write_layer(upper, out)
    assert stats.bytes == len(out.getvalue())
    return out.getvalue()


def members(layer: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        return {info.name: info for info in archive}


def make_everything(root: Path) -> None:
    """One of each thing a layer can hold."""
    (root / "bin").mkdir(mode=0o711)
    (root / "bin" / "su").write_bytes(b"#!su")
    (root / "bin" / "su").chmod(0o6755)
    os.link(root / "bin" / "su", root / "bin" / "sudo")
    (root / "bin" / "server").write_bytes(os.urandom(1_500_000))
    os.setxattr(root / "bin" / "server", "security.capability", CAPABILITY)
    (root / "empty").touch()
    (root / "sh").symlink_to("bin/../../../sh")
    os.link(root / "sh", root / "sh2", follow_symlinks=False)
    (root / "dev").mkdir()
    os.mknod(root / "dev" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "dev" / "loop300", stat.S_IFBLK | 0o660, os.makedev(7, 70_000))
    os.mkfifo(root / "dev" / "fifo", 0o622)
    long = root / "/".join(["n" * 100] * 3)
    long.mkdir(parents=True)
    (long / ("f" * 200)).write_text("deep")
    (root / "long-link").symlink_to("t" * 300)
    for name in ("한글", "a b\nc=d", "\udcff\udcfe"):
        (root / name).write_text(name, errors="surrogateescape")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "noted").write_text("x")
    os.setxattr(root / "noted", "user.note", b"a\0=b\n")
    os.chown(root / "noted", 3_000_000_000, 2_500_000)
    os.chown(root / "sh", 12, 34, follow_symlinks=False)
    with (root / "sparse").open("wb") as file:
        file.seek(5 << 20)
        file.write(b"middle")
        file.truncate(64 << 20)
    os.utime(root / "noted", ns=(0, -1_500_000_000))
    os.utime(root / "sh", ns=(0, 1_234_567_890_123_456_789), follow_symlinks=False)
    os.utime(root / "empty", ns=(0, 9_999_999_999 * 10**9))
    os.utime(root / "tmp", ns=(0, 1_000_000_001))


def described(root: Path) -> dict[str, object]:
    """All that should come back, by path."""
    result: dict[str, object] = {}
    inodes: dict[int, str] = {}
    for path, folders, files in os.walk(root):
        for name in sorted(folders + files):
            file = Path(path, name)
            status = file.lstat()
            is_file = stat.S_ISREG(status.st_mode)
            result[str(file.relative_to(root))] = (
                oct(status.st_mode),
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                status.st_rdev,
                status.st_size if is_file else 0,
                file.read_bytes() if is_file else b"",
                str(file.readlink()) if file.is_symlink() else "",
                {
                    k: os.getxattr(file, k, follow_symlinks=False)
                    for k in os.listxattr(file, follow_symlinks=False)
                },
            )
            if not stat.S_ISDIR(status.st_mode):
                first = inodes.setdefault(status.st_ino, str(file))
                result[f"link {file.relative_to(root)}"] = os.path.relpath(first, root)
    return result


def test_everything_comes_back(tmp_path: Path, root: Path) -> None:
    make_everything(root)
    layer = layer_of(root)
    (tmp_path / "copy").mkdir()
    apply_layer(io.BytesIO(layer), tmp_path / "copy")
    assert described(tmp_path / "copy") == described(root)
    assert (tmp_path / "copy" / "sparse").stat().st_blocks * 512 < 1 << 20
    assert layer_of(tmp_path / "copy") == layer, "the same tree is the same layer"


def test_gnu_tar_and_tarfile_read_our_layers(tmp_path: Path, root: Path) -> None:
    make_everything(root)
    (tmp_path / "layer.tar").write_bytes(layer_of(root))
    assert len(layer_of(root)) < 8 << 20, "holes are not stored"
    (tmp_path / "gnu").mkdir()
    subprocess.run(
        ["tar", "--xattrs", "--xattrs-include=*", "-xpf", "../layer.tar"],
        cwd=tmp_path / "gnu",
        check=True,
        stderr=subprocess.PIPE,
    )
    assert described(tmp_path / "gnu") == described(root)
    with tarfile.open(tmp_path / "layer.tar") as archive:
        sparse = archive.extractfile("sparse")
        assert sparse is not None
        assert sparse.read() == (root / "sparse").read_bytes()


@pytest.mark.parametrize("version", ["gnu", "posix 0.0", "posix 0.1", "posix 1.0", "v7", "ustar"])
def test_we_read_gnu_tars_formats(tmp_path: Path, root: Path, version: str) -> None:
    kind, _, sparse = version.partition(" ")
    if kind in ("gnu", "posix"):
        make_everything(root)
        (root / "noted").unlink()  # GNU tar warns about its time and owner
        with (root / "holes").open("wb") as file:
            for place in range(60):
                file.seek(place << 16)
                file.write(b"%d" % place)
    else:
        (root / "bin").mkdir()
        (root / "bin" / "file").write_text("x" * 1000)
        (root / "link").symlink_to("bin")
        if kind == "ustar":
            (root / ("d" * 90) / ("e" * 60)).mkdir(parents=True)
            (root / ("d" * 90) / ("e" * 60) / ("f" * 90)).write_text("prefix")
    command = ["tar", f"--format={kind}", "-cf", str(tmp_path / "a.tar"), "-C", str(root), "."]
    if sparse:
        command[1:1] = ["--xattrs", "--xattrs-include=*", "--sparse", f"--sparse-version={sparse}"]
    elif kind == "gnu":
        command[1:1] = ["--sparse"]
    subprocess.run(command, check=True)
    (tmp_path / "copy").mkdir()
    with (tmp_path / "a.tar").open("rb") as stream:
        apply_layer(stream, tmp_path / "copy")
    expected, found = described(root), described(tmp_path / "copy")
    if kind != "posix":  # whole seconds, no xattrs
        expected, found = (
            {
                key: (*value[:3], value[3] // 10**9, *value[4:8])
                if isinstance(value, tuple)
                else value
                for key, value in tree.items()
            }
            for tree in (expected, found)
        )
    assert found == expected


def test_an_empty_layer_is_dockers_empty_layer(root: Path) -> None:
    empty = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    assert Digest.of(layer_of(root)).hex == empty


def test_order_does_not_depend_on_the_disk(tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(200)]
    layers: list[bytes] = []
    for order in (names, names[::-1]):
        root = tmp_path / str(len(layers))
        for name in order:
            (root / name / "sub").mkdir(parents=True)
            (root / name / "file").touch()
        for path, folders, files in os.walk(root):
            for name in folders + files:
                os.utime(Path(path, name), ns=(1, 1))
        layers.append(layer_of(root))
    assert layers[0] == layers[1]
    found = list(members(layers[0]))
    assert found[:4] == ["n0", "n0/file", "n0/sub", "n1"]


def test_whiteouts_of_overlay_become_the_specs_and_come_back(
    snapshots: OverlaySnapshotter, tmp_path: Path
) -> None:
    """What overlayfs shows over the layer applied is what the container saw."""
    target = tmp_path / "target"
    target.mkdir()
    snapshots.prepare("extract-base", None)
    upper = snapshots.upper("extract-base")
    for name in ("file", "gone", "folder/old", "folder/kept", "all/old", "was-folder/x"):
        (upper / name).parent.mkdir(exist_ok=True)
        (upper / name).write_text("base")
    snapshots.commit("extract-base", "base")
    snapshots.prepare("step", "base")
    snapshots.mount("step", target)
    subprocess.run(
        "rm gone folder/old; rm -r all was-folder; mkdir all; echo new >all/new;"
        "echo now-a-file >was-folder; rm file; mkdir file; mkdir -p new/deep; mv new moved",
        shell=True, check=True, cwd=target,
    )  # fmt: skip
    seen = described(target)
    snapshots.unmount(target)
    layer = layer_of(snapshots.upper("step"))
    found = members(layer)
    assert {".wh.gone", "folder/.wh.old", "all/.wh..wh..opq", "all/new"} <= set(found)
    assert {"gone", "folder/kept", "all/old"}.isdisjoint(found)
    assert not any(info.ischr() for info in found.values())
    assert found[".wh.gone"].isreg()
    assert found[".wh.gone"].size == 0

    snapshots.prepare("extract-step", "base")
    apply_layer(
        io.BytesIO(layer), snapshots.upper("extract-step"), snapshots.lowers("extract-step")
    )
    snapshots.mount("extract-step", target)
    assert described(target) == seen
    snapshots.unmount(target)
    assert layer_of(snapshots.upper("extract-step")) == layer


@pytest.mark.parametrize("first", ["whiteout", "folder"])
def test_deleted_and_made_anew_in_one_layer(
    snapshots: OverlaySnapshotter, tmp_path: Path, first: str
) -> None:
    """image-spec: a whiteout hides what lies below, never what its own layer brings."""
    (tmp_path / "target").mkdir()
    snapshots.prepare("base", None)
    apply_layer(make_tar(folder("d"), member("d/old"), member("f")), snapshots.upper("base"))
    snapshots.commit("base", "base")
    entries: list[Member] = [
        member(".wh.d"),
        folder("d"),
        member("d/new"),
        (member("f"), b"x"),
        member(".wh.f"),
    ]
    if first == "folder":
        entries = [*entries[1:], entries[0]]
    snapshots.prepare("top", "base")
    apply_layer(make_tar(*entries), snapshots.upper("top"))
    snapshots.mount("top", tmp_path / "target")
    assert os.listdir(tmp_path / "target" / "d") == ["new"]  # noqa: PTH208
    assert (tmp_path / "target" / "f").read_text() == "x"
    snapshots.unmount(tmp_path / "target")


def test_a_file_below_a_deleted_folder_brings_it_back_empty(
    snapshots: OverlaySnapshotter, tmp_path: Path
) -> None:
    (tmp_path / "target").mkdir()
    snapshots.prepare("base", None)
    apply_layer(make_tar(folder("d"), member("d/old")), snapshots.upper("base"))
    snapshots.commit("base", "base")
    snapshots.prepare("top", "base")
    apply_layer(make_tar(member(".wh.d"), member("d/e/new")), snapshots.upper("top"))
    snapshots.mount("top", tmp_path / "target")
    assert [path.name for path in (tmp_path / "target" / "d").iterdir()] == ["e"]
    snapshots.unmount(tmp_path / "target")


def test_folders_the_layer_does_not_mention_stay_as_they_are_below(
    snapshots: OverlaySnapshotter, tmp_path: Path
) -> None:
    (tmp_path / "target").mkdir()
    snapshots.prepare("base", None)
    apply_layer(
        make_tar(
            folder("var", mode=0o1777, uid=5, gid=6, mtime=77), folder("var/deep", mode=0o700)
        ),
        snapshots.upper("base"),
    )
    os.setxattr(snapshots.upper("base") / "var", "user.note", b"x")
    snapshots.commit("base", "base")
    snapshots.prepare("top", "base")
    apply_layer(
        make_tar(member("var/deep/file"), member("new/file")),
        snapshots.upper("top"),
        snapshots.lowers("top"),
    )
    snapshots.mount("top", tmp_path / "target")
    status = (tmp_path / "target" / "var").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1777, 5, 6)
    assert status.st_mtime == 77
    assert os.getxattr(tmp_path / "target" / "var", "user.note") == b"x"
    assert stat.S_IMODE((tmp_path / "target" / "var" / "deep").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "target" / "new").stat().st_mode) == 0o755
    snapshots.unmount(tmp_path / "target")


def test_a_later_entry_replaces_an_earlier_one(root: Path) -> None:
    apply_layer(
        make_tar(
            folder("a"), (member("a/x"), b"1"), member("a", mode=0o600, mtime=5), folder("b"),
            member("b/kept"), folder("b", mode=0o700, mtime=6), symlink("c", "b"), folder("c"),
            member("c/own"), (member("d"), b"1"), (member("d", mode=0o640), b"22"),
            hardlink("e", "d"), hardlink("e", "d"), symlink("d", "e"),
        ),
        root,
    )  # fmt: skip
    assert (root / "a").is_file()
    assert (root / "a").stat().st_mtime == 5
    assert [path.name for path in (root / "b").iterdir()] == ["kept"]
    assert (stat.S_IMODE((root / "b").stat().st_mode), (root / "b").stat().st_mtime) == (0o700, 6)
    assert (root / "c").is_dir()
    assert not (root / "c").is_symlink()
    assert (root / "e").read_text() == "22"
    assert (root / "d").is_symlink()


def test_names_are_taken_as_docker_takes_them(root: Path) -> None:
    apply_layer(
        make_tar(
            folder("./", mode=0o700, mtime=9), member("./a"), member("b//c/./d/"),
            member("x/../y"), member(".hidden"), member("..dots"), member("/absolute"),
        ),
        root,
    )  # fmt: skip
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert found == {"a", "b/c/d", "y", ".hidden", "..dots", "absolute"}
    assert (stat.S_IMODE(root.stat().st_mode), root.stat().st_mtime) == (0o700, 9)


def test_folders_behind_links_of_the_layer_are_found_or_made(root: Path) -> None:
    apply_layer(
        make_tar(
            symlink("lib", "usr/lib"), member("lib/one"), symlink("run", "/var/run/../run/deep"),
            member("run/x/two"), symlink("up", "../../../etc"), member("up/three"),
        ),
        root,
    )  # fmt: skip
    assert (root / "usr/lib/one").is_file()
    assert (root / "var/run/deep/x/two").is_file()
    assert (root / "etc/three").is_file()


def test_without_whiteouts_names_are_only_names(root: Path) -> None:
    apply_layer(make_tar((member(".wh.x"), b"y"), member(".wh..wh..opq")), root, rules=ARCHIVE)
    assert (root / ".wh.x").read_text() == "y"
    assert os.listxattr(root) == []


def test_aufs_files_of_old_images_are_passed_over(root: Path) -> None:
    apply_layer(make_tar(member(".wh..wh.aufs"), folder(".wh..wh.plnk"), member("x")), root)
    assert [path.name for path in root.iterdir()] == ["x"]


def test_global_headers_are_passed_over(root: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out,
        mode="w",
        format=tarfile.PAX_FORMAT,
        pax_headers={"path": "evil", "comment": "c"},
    ) as archive:
        archive.addfile(member("x"))
    out.seek(0)
    apply_layer(out, root)
    assert [path.name for path in root.iterdir()] == ["x"]


def test_a_user_cannot_make_whiteouts(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d" / ".wh.passwd").touch()
    with pytest.raises(InvalidInput, match=r"d/\.wh\.passwd has a name that layers keep"):
        layer_of(root)


def test_sockets_are_left_out_and_fifos_not_opened(root: Path) -> None:
    os.mknod(root / "socket", stat.S_IFSOCK | 0o600)
    os.mkfifo(root / "fifo")
    assert list(members(layer_of(root))) == ["fifo"]


def test_xattrs_of_this_host_do_not_travel(root: Path) -> None:
    (root / "d").mkdir()
    for key in (
        "trusted.overlay.origin",
        "trusted.overlay.impure",
        "trusted.other",
        "user.kept",
        "user.a=b",
    ):
        os.setxattr(root / "d", key, b"y")
    assert members(layer_of(root))["d"].pax_headers.keys() - {"mtime"} == {"SCHILY.xattr.user.kept"}


def test_a_file_that_shrinks_while_it_is_read_is_an_error(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "log").write_bytes(b"x" * 3_000_000)
    pread = os.pread

    def shrinking(fd: int, size: int, offset: int) -> bytes:
        os.truncate(root / "log", 1000)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", shrinking)
    with pytest.raises(Conflict, match="log changed while it was read"):
        layer_of(root)


@pytest.fixture
def deep(root: Path) -> Iterator[Path]:
    """A root whose tree pytest itself could not remove."""
    yield root
    remove_tree(root)


def test_deep_trees_are_written_or_refused_with_a_sentence(tmp_path: Path, deep: Path) -> None:
    def nest(depth: int) -> None:
        fd = os.open(deep, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir("dddd", dir_fd=fd) if "dddd" not in os.listdir(fd) else None  # noqa: PTH208
            below = os.open("dddd", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)

    nest(1100)
    assert len(members(layer_of(deep))) == 1100
    nest(2100)
    with pytest.raises(InvalidInput, match="nested deeper"):
        layer_of(deep)
    with pytest.raises(ContextError, match="too long"):
        apply_layer(make_tar(member("d/" * 3000 + "f")), tmp_path)


def test_no_descriptor_is_left_open(tmp_path: Path, root: Path) -> None:
    before = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    entries = [member(f"d{number}/e/f") for number in range(300)]
    apply_layer(make_tar(*entries), root)
    layer_of(root)
    (root / "d7" / "e" / ".wh.x").touch()
    with pytest.raises(InvalidInput):
        layer_of(root)
    with pytest.raises(ContextError):
        apply_layer(make_tar(*entries, member("../x")), root)
    assert sorted(path.name for path in Path("/proc/self/fd").iterdir()) == before
