"""Security cases 11 and 12 for layers: nothing leaves the root, nothing grows without measure."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
from pathlib import Path

import pytest
import zstandard

from engine.errors import ContextError
from engine.snapshots import ARCHIVE, Rules, apply_layer, open_layer
from engine.snapshots.tar_reader import TarReader
from tests.tars import Member, folder, hardlink, make_tar, member, symlink


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the host's that must be after each test as it was before."""
    place = tmp_path / "outside"
    place.mkdir(mode=0o700)
    (place / "secret").write_text("host")
    return place


def untouched(outside: Path) -> bool:
    return (
        [path.name for path in outside.iterdir()] == ["secret"]
        and (outside / "secret").read_text() == "host"
        and (outside / "secret").stat().st_nlink == 1
        and stat.S_IMODE(outside.stat().st_mode) == 0o700
        and os.listxattr(outside) == []
    )


@pytest.mark.parametrize(
    "name",
    ["../evil", "..", "a/../../evil", "./../evil", "/../evil", "a/b/../../../evil", "a/../.."],
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
def test_dot_dot_is_refused(root: Path, name: str, kind: bytes) -> None:
    with pytest.raises(ContextError, match="leads out of it"):
        apply_layer(make_tar(member(name, kind, linkname="x")), root)
    assert [path.name for path in root.parent.iterdir()] == ["root"]


@pytest.mark.parametrize("name", ["../.wh.secret", "a/../../outside/.wh.secret"])
def test_whiteouts_out_of_the_root(root: Path, outside: Path, name: str) -> None:
    with pytest.raises(ContextError, match="leads out of it"):
        apply_layer(make_tar(member(name)), root)
    assert untouched(outside)


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh...", "a/.wh..", "a/.wh."])
def test_whiteouts_of_the_folder_itself_or_above(root: Path, name: str) -> None:
    with pytest.raises(ContextError, match="whiteout of nothing"):
        apply_layer(make_tar(folder("a"), member(name)), root)


def test_files_below_a_whiteout_name(root: Path) -> None:
    with pytest.raises(ContextError, match="below a whiteout"):
        apply_layer(make_tar(member("a/.wh.b/c")), root)


def test_absolute_names_stay_inside(root: Path, outside: Path) -> None:
    apply_layer(make_tar((member(f"{outside}/secret"), b"evil")), root)
    assert untouched(outside)
    assert (root / str(outside)[1:] / "secret").read_text() == "evil"


def evil_through(link: str) -> list[Member]:
    """All that could be done to what is behind a link."""
    return [
        (member(f"{link}/secret"), b"evil"),
        (member(f"{link}/new"), b"evil"),
        folder(f"{link}/folder"),
        symlink(f"{link}/link", "x"),
        member(f"{link}/node", tarfile.FIFOTYPE),
        hardlink(f"{link}/hard", f"{link}/secret"),
        member(f"{link}/.wh.secret"),
        member(f"{link}/.wh..wh..opq"),
    ]


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_nothing_goes_through_a_link_to_the_host(
    root: Path, outside: Path, relative: bool, before: bool
) -> None:
    """Whether the layer brings the link or an earlier one did."""
    target = "../" * 20 + str(outside)[1:] if relative else str(outside)
    if before:
        (root / "link").symlink_to(target)
    apply_layer(make_tar(symlink("link", target), *evil_through("link")), root)
    if before:
        (root / "again").symlink_to(target)
        apply_layer(make_tar(*evil_through("again")), root)
    assert untouched(outside)
    assert (root / str(outside)[1:] / "new").read_text() == "evil"


def test_links_to_links_stay_inside(root: Path, outside: Path) -> None:
    chain = [symlink("a", "b"), symlink("b", "c/up"), folder("c"), symlink("c/up", "../../outside")]
    apply_layer(make_tar(*chain, *evil_through("a")), root)
    assert untouched(outside)


def test_a_loop_of_links_is_an_error(root: Path) -> None:
    with pytest.raises(ContextError, match="cannot be unpacked"):
        apply_layer(make_tar(symlink("a", "b"), symlink("b", "a"), member("a/x")), root)


@pytest.mark.parametrize(
    "last",
    [
        (member("link"), b"evil"),
        folder("link", mode=0o777, uid=77),
        symlink("link", "x"),
        member("link", tarfile.FIFOTYPE),
        hardlink("link", "own"),
        member(".wh.link"),
    ],
)
@pytest.mark.parametrize("target", ["outside", "outside/secret"])
def test_the_last_part_of_a_name_is_never_followed(
    root: Path, outside: Path, last: Member, target: str
) -> None:
    (root / "link").symlink_to(outside.parent / target)
    apply_layer(make_tar(member("own"), last), root)
    assert untouched(outside)
    assert os.listxattr(root / "link", follow_symlinks=False) == []


@pytest.mark.parametrize("what", ["mode", "time", "xattr"])
def test_metadata_of_a_link_is_its_own(root: Path, outside: Path, what: str) -> None:
    before = outside.stat()
    link = symlink("link", str(outside))
    link.mode, link.mtime, link.uid = 0o777, 5, 77
    link.pax_headers = {"SCHILY.xattr.user.evil": "1", "SCHILY.xattr.security.evil": "1"}
    apply_layer(make_tar(link), root)
    after = outside.stat()
    assert (before.st_mode, before.st_uid, before.st_mtime) == (
        after.st_mode,
        after.st_uid,
        after.st_mtime,
    )
    assert untouched(outside)


@pytest.mark.parametrize("target", ["../outside/secret", "a/../../outside/secret", "/../x"])
def test_hard_links_out_of_the_root(root: Path, outside: Path, target: str) -> None:
    with pytest.raises(ContextError, match="leads out of it"):
        apply_layer(make_tar(hardlink("hard", target)), root)
    assert untouched(outside)


@pytest.mark.parametrize("target", ["link", "folder/secret", "ABSOLUTE", "missing"])
def test_hard_links_through_links(root: Path, outside: Path, target: str) -> None:
    """Of the link itself it may be; of what is behind it never."""
    entries = [symlink("link", str(outside / "secret")), symlink("folder", str(outside))]
    evil = hardlink("hard", target.replace("ABSOLUTE", str(outside / "secret")))
    if target == "link":
        apply_layer(make_tar(*entries, evil, (member("hard/x"), b"")), root)
    else:
        with pytest.raises(ContextError, match="which is not in it"):
            apply_layer(make_tar(*entries, evil, (member("hard"), b"evil")), root)
    assert untouched(outside)


def test_replacing_a_folder_by_a_link_between_two_of_its_files(root: Path, outside: Path) -> None:
    """What is remembered of a path must not outlive it, nor its times be set behind the link."""
    before = outside.stat().st_mtime
    apply_layer(
        make_tar(
            folder("a", mtime=5),
            (member("a/one"), b"x"),
            symlink("a", str(outside)),
            *evil_through("a"),
            folder("b", mtime=5),
            symlink("b", str(outside)),
        ),
        root,
    )
    assert untouched(outside)
    assert outside.stat().st_mtime == before


def test_times_of_folders_are_not_set_behind_a_link_that_came_by_another_name(
    root: Path, outside: Path
) -> None:
    before = outside.stat().st_mtime
    alias = [folder("a"), folder("a/b", mtime=5), symlink("alias", "a")]
    apply_layer(make_tar(*alias, symlink("alias/b", str(outside))), root)
    assert (root / "a" / "b").is_symlink()
    assert outside.stat().st_mtime == before


def test_removing_a_folder_in_the_way_follows_no_link(root: Path, outside: Path) -> None:
    (root / "a" / "deep").mkdir(parents=True)
    (root / "a" / "deep" / "link").symlink_to(outside)
    apply_layer(make_tar(member("a")), root)
    assert untouched(outside)


def test_parents_from_below_are_not_taken_through_links(tmp_path: Path, root: Path) -> None:
    (tmp_path / "lower").mkdir()
    (tmp_path / "host").mkdir()
    (tmp_path / "host").chmod(0o777)
    (tmp_path / "lower" / "d").symlink_to(tmp_path / "host")
    apply_layer(make_tar(member("d/x")), root, [tmp_path / "lower"])
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o755


def test_a_root_that_is_a_link_is_not_followed(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(OSError, match="Not a directory"):
        apply_layer(make_tar(member("x")), tmp_path / "link")
    assert untouched(outside)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.REGTYPE, tarfile.LNKTYPE])
def test_the_root_itself_is_not_replaced(root: Path, kind: bytes) -> None:
    with pytest.raises(ContextError, match=r"root folder|not in it"):
        apply_layer(make_tar(member("./", kind, linkname="/etc")), root)
    assert root.is_dir()
    assert not root.is_symlink()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_device_nodes_come_with_images_only(root: Path, kind: bytes) -> None:
    """An upload has none; an image's lie below the 0700 of the snapshots' root (test_snapshots)."""
    node = member("sda", kind, devmajor=8, devminor=0, mode=0o666)
    with pytest.raises(ContextError, match="device node: sda"):
        apply_layer(make_tar(node), root, rules=ARCHIVE)
    assert list(root.iterdir()) == []
    apply_layer(make_tar(node), root)
    assert os.lstat(root / "sda").st_rdev == os.makedev(8, 0)


@pytest.mark.parametrize(
    "key", ["opaque", "redirect", "metacopy", "origin", "whiteout", "upper", "nlink", "protattr"]
)
def test_overlays_own_xattrs_are_not_taken_from_a_layer(root: Path, key: str) -> None:
    """`redirect` would show a folder of another layer, `metacopy` the content of another file."""
    evil, also, kept = folder("d"), member("f"), folder("kept")
    for info in (evil, also):
        info.pax_headers = {f"SCHILY.xattr.trusted.overlay.{key}": "/../../etc"}
    kept.pax_headers = {"SCHILY.xattr.user.x": "y", "SCHILY.xattr.trusted.own": "z"}
    apply_layer(make_tar(evil, also, kept), root)
    assert os.listxattr(root / "d") == os.listxattr(root / "f") == []
    assert sorted(os.listxattr(root / "kept")) == ["trusted.own", "user.x"]


def test_bomb_by_size(root: Path) -> None:
    entries = [(member(f"f{number}"), b"x" * 1000) for number in range(20)]
    with pytest.raises(ContextError, match="holds more than 5000 bytes"):
        apply_layer(make_tar(*entries), root, rules=Rules(bytes=5000))
    assert len(list(root.iterdir())) == 5


def test_bomb_by_count(root: Path) -> None:
    with pytest.raises(ContextError, match="or 7 files"):
        apply_layer(make_tar(*[folder(f"f{n}") for n in range(9)]), root, rules=Rules(entries=7))
    assert len(list(root.iterdir())) == 7


def test_a_size_that_is_claimed_is_not_reserved(root: Path) -> None:
    """Two exabytes in a header of 512 bytes."""
    info = member("f")
    info.size = 1 << 61
    header = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(ContextError, match="holds more than"):
        apply_layer(io.BytesIO(header + bytes(1024)), root)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_bomb_by_ratio(root: Path, pack: object) -> None:
    assert callable(pack)
    bomb = pack(make_tar((member("zeros"), bytes(8 << 20))).getvalue())
    with (
        pytest.raises(ContextError, match="grows more than 200-fold"),
        open_layer(io.BytesIO(bomb), grace=1 << 20) as layer,
    ):
        apply_layer(layer, root)
    written = sum(path.stat().st_size for path in root.iterdir())
    assert written <= max(1 << 20, 200 * len(bomb))
    with open_layer(io.BytesIO(bomb)) as layer:  # so much is no bomb yet
        apply_layer(layer, root)


@pytest.mark.parametrize("kind", [b"x", b"L", b"K"])
def test_bomb_by_header(root: Path, kind: bytes) -> None:
    """A name of 2 GiB must not be collected in memory."""
    info = member("header", kind)
    info.size = 2 << 30
    reads: list[int] = []

    class Endless(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            reads.append(size)
            return info.tobuf(tarfile.GNU_FORMAT) if len(reads) == 1 else bytes(size)

    with pytest.raises(ContextError, match="a header of 2147483648 bytes"):
        list(TarReader(Endless()))
    assert len(reads) == 1


@pytest.mark.parametrize("format", ["old", "1.0"])
def test_bomb_by_sparse_map(format: str) -> None:
    info = member("sparse", b"S" if format == "old" else tarfile.REGTYPE)
    info.size = 1 << 33
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    filler = b"0" * 512
    if format == "old":
        header[482] = 1
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        filler = b"00000000001\0" * 42 + b"\1" * 8
    else:
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "9"}
        header = bytearray(info.tobuf(tarfile.PAX_FORMAT))
    taken = 0

    class Endless(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            nonlocal taken
            taken += 1
            assert taken < 100, "it goes on reading"
            return bytes(header) if taken == 1 else filler * 128

    with pytest.raises(ContextError):
        list(TarReader(Endless()))
    assert taken * 65536 < 4 << 20
