"""Security case 11: what an uploaded archive may not do."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from engine.build.archive import Unpacked, unpack_archive
from engine.build.archive_tree import Limits
from engine.errors import Cancelled, ContextError


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def make_tar(path: Path, *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for entry in members:
            info, data = entry if isinstance(entry, tuple) else (entry, b"")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def refused(archive: Path, dest: Path, entry: str) -> ContextError:
    with pytest.raises(ContextError) as caught:
        unpack_archive(archive, dest)
    assert caught.value.context["entry"] == entry
    assert entry in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "//evil", "a/b/../../../evil", "..", "./../x"]
)
def test_names_that_lead_outside(tmp_path: Path, name: str) -> None:
    refused(make_tar(tmp_path / "a.tar", (member(name), b"x")), tmp_path / "out", name)
    assert not (tmp_path / "evil").exists()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "x")
    refused(tmp_path / "a.zip", tmp_path / "out2", name)


def test_nothing_is_written_through_a_symbolic_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = make_tar(
        tmp_path / "a.tar",
        member("link", tarfile.SYMTYPE, linkname=str(outside)),
        (member("link/evil"), b"x"),
    )
    refused(archive, tmp_path / "out", "link/evil")
    assert list(outside.iterdir()) == []


def test_a_folder_entry_over_a_link_does_not_follow_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    archive = make_tar(
        tmp_path / "a.tar",
        member("link", tarfile.SYMTYPE, linkname=str(outside)),
        member("link", tarfile.DIRTYPE, mode=0o777),
    )
    refused(archive, tmp_path / "out", "link/")
    assert stat.S_IMODE(outside.stat().st_mode) == 0o700


def test_a_file_over_a_link_replaces_the_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("kept")
    archive = make_tar(
        tmp_path / "a.tar",
        member("name", tarfile.SYMTYPE, linkname=str(outside)),
        (member("name"), b"new"),
    )
    unpack_archive(archive, tmp_path / "out")
    assert outside.read_text() == "kept"
    assert (tmp_path / "out/name").read_text() == "new"
    assert not (tmp_path / "out/name").is_symlink()


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "link", "missing", "folder"])
def test_hard_links_only_to_files_of_the_archive(tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").write_text("host")
    archive = make_tar(
        tmp_path / "a.tar",
        member("link", tarfile.SYMTYPE, linkname="../secret"),
        member("folder", tarfile.DIRTYPE, mode=0o755),
        member("hard", tarfile.LNKTYPE, linkname=target),
    )
    refused(archive, tmp_path / "out", "hard")


def test_a_hard_link_inside_is_kept(tmp_path: Path) -> None:
    archive = make_tar(
        tmp_path / "a.tar",
        (member("a/one"), b"x"),
        member("two", tarfile.LNKTYPE, linkname="./a/one"),
    )
    unpack_archive(archive, tmp_path / "out")
    assert (tmp_path / "out/two").stat().st_ino == (tmp_path / "out/a/one").stat().st_ino


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_fifos(tmp_path: Path, kind: bytes) -> None:
    archive = make_tar(tmp_path / "a.tar", member("dev/sda", kind, devmajor=8, devminor=0))
    refused(archive, tmp_path / "out", "dev/sda")


def test_a_device_in_a_zip(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("dev")
    info.create_system = 3
    info.external_attr = (stat.S_IFBLK | 0o600) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "")
    refused(tmp_path / "a.zip", tmp_path / "out", "dev")


def test_a_symbolic_link_stays_a_link_and_the_tree_is_closed(tmp_path: Path) -> None:
    archive = make_tar(
        tmp_path / "a.tar",
        member("out", tarfile.SYMTYPE, linkname="/etc/passwd"),
        (member("suid", mode=0o4755), b"x"),
    )
    unpack_archive(archive, tmp_path / "tree")
    assert str((tmp_path / "tree/out").readlink()) == "/etc/passwd"
    # A setuid file of a stranger, root's on the host: nobody else may reach it.
    assert stat.S_IMODE((tmp_path / "tree").stat().st_mode) == 0o700


def test_owners_are_dropped_unless_wanted(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", (member("f", uid=1234, gid=5678, mode=0o4755), b"x"))
    unpack_archive(archive, tmp_path / "plain")
    assert (tmp_path / "plain/f").stat().st_uid == 0
    unpack_archive(archive, tmp_path / "kept", keep_owners=True)
    status = (tmp_path / "kept/f").stat()
    assert (status.st_uid, status.st_gid) == (1234, 5678)
    assert stat.S_IMODE(status.st_mode) == 0o4755


def test_bomb_by_ratio(tmp_path: Path) -> None:
    zeros = bytes(4 * 1024 * 1024)
    archive = make_tar(tmp_path / "a.tar", *((member(f"f{n}"), zeros) for n in range(8)))
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(archive.read_bytes(), 9))
    limits = Limits(ratio_floor=1024 * 1024)
    with pytest.raises(ContextError, match="unpacks to too much"):
        unpack_archive(packed, tmp_path / "out", limits=limits)
    written = sum(f.stat().st_size for f in (tmp_path / "out").iterdir())
    assert written < 200 * packed.stat().st_size + 2 * 1024 * 1024


def test_bomb_by_size_and_count(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", *((member(f"f{n}"), b"x" * 100) for n in range(20)))
    with pytest.raises(ContextError, match="unpacks to too much"):
        unpack_archive(archive, tmp_path / "one", limits=Limits(size=1000))
    with pytest.raises(ContextError, match="too many files"):
        unpack_archive(archive, tmp_path / "two", limits=Limits(entries=10))


def test_a_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("f", bytes(8 * 1024 * 1024))
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\x01\x02") + 24
    data[place : place + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ContextError, match="damaged"):
        unpack_archive(path, tmp_path / "out", limits=Limits(ratio_floor=1024))


PACKERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("tar", lambda data: data),
    ("gz", gzip.compress),
    ("bz2", bz2.compress),
    ("xz", lzma.compress),
    ("zst", zstandard.compress),
]


@pytest.mark.parametrize(("kind", "pack"), PACKERS)
def test_every_kind_unpacks_and_a_cut_one_says_so(
    tmp_path: Path, kind: str, pack: Callable[[bytes], bytes]
) -> None:
    long_name = "/".join(["d" * 90] * 4) + "/파일"
    data = os.urandom(300_000)
    info = member(long_name, mode=0o640)
    info.pax_headers = {"mtime": "1700000000.123456789"}
    archive = make_tar(
        tmp_path / "a.tar", member("empty", tarfile.DIRTYPE, mode=0o750), (info, data)
    )
    packed = tmp_path / f"a.{kind}"
    packed.write_bytes(pack(archive.read_bytes()))
    out = tmp_path / "out"
    assert unpack_archive(packed, out) == Unpacked(entries=2, size=300_000)
    assert (out / long_name).read_bytes() == data
    assert (out / long_name).stat().st_mtime_ns == 1_700_000_000_123_456_789
    assert stat.S_IMODE((out / long_name).stat().st_mode) == 0o640
    assert stat.S_IMODE((out / "empty").stat().st_mode) == 0o750

    cut = tmp_path / f"cut.{kind}"
    cut.write_bytes(packed.read_bytes()[:200_000])
    with pytest.raises(ContextError, match="damaged or incomplete"):
        unpack_archive(cut, tmp_path / "cut-out")


def test_zip_modes_links_and_names(tmp_path: Path) -> None:
    script, link = zipfile.ZipInfo("bin/run"), zipfile.ZipInfo("run")
    script.create_system = link.create_system = 3
    script.external_attr = (stat.S_IFREG | 0o755) << 16
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    windows = zipfile.ZipInfo("dir/file.txt")
    windows.create_system = 0
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(script, "#!/bin/sh\n")
        archive.writestr(link, "bin/run")
        archive.writestr(windows, "x")
        archive.writestr("한글.txt", "x")
    # As macOS writes them: UTF-8 bytes without the flag that says so.
    raw = path.read_bytes()
    for start in (raw.index("한글.txt".encode()) - 30, raw.rindex("한글.txt".encode()) - 46):
        flag = start + (6 if raw[start : start + 4] == b"PK\x03\x04" else 8)
        raw = raw[:flag] + b"\0\0" + raw[flag + 2 :]
    path.write_bytes(raw)
    out = tmp_path / "out"
    unpack_archive(path, out)
    assert stat.S_IMODE((out / "bin/run").stat().st_mode) == 0o755
    assert str((out / "run").readlink()) == "bin/run"
    assert stat.S_IMODE((out / "dir/file.txt").stat().st_mode) == 0o644
    assert (out / "한글.txt").read_text() == "x"


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b\x08\x00garbage", b"PK\x03\x04x" * 9])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ContextError):
        unpack_archive(tmp_path / "a", tmp_path / "out")


def test_cancelled(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", (member("f"), b"x"))
    with pytest.raises(Cancelled):
        unpack_archive(archive, tmp_path / "out", cancelled=lambda: True)


def test_the_destination_must_be_empty(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", (member("f"), b"x"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").write_text("")
    with pytest.raises(ContextError, match="not an empty folder"):
        unpack_archive(archive, tmp_path / "out")
