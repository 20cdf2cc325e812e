"""Our tar reader and writer, without a file system: against tarfile, and against anything."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import ContextError
from engine.snapshots.folders import clean
from engine.snapshots.tar_reader import FILE, LINK, SYMLINK, Entry, TarReader, checksum
from engine.snapshots.tar_writer import END, member, padding
from tests.tars import hardlink

QUICK = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
NAMES = st.binary(min_size=1, max_size=300).map(
    lambda name: name.replace(b"\0", b"0").replace(b"/", b"_").strip(b".") or b"x"
)
NANOSECONDS = st.integers(-(10**18), 10**19)
IDS = st.integers(0, 2**32 - 2)


def read(archive: bytes) -> list[tuple[Entry, bytes]]:
    reader = TarReader(io.BytesIO(archive))
    return [(entry, b"".join(bytes(piece) for _, piece in reader.data())) for entry in reader]


@settings(QUICK, max_examples=80)
@given(
    name=NAMES,
    link=NAMES,
    data=st.binary(max_size=2000),
    mtime_ns=NANOSECONDS,
    uid=IDS,
    gid=IDS,
    mode=st.integers(0, 0o7777),
    xattrs=st.dictionaries(st.sampled_from(["user.a", "user.d e"]), st.binary(max_size=99)),
)
def test_what_we_write_we_read(
    name: bytes,
    link: bytes,
    data: bytes,
    mtime_ns: int,
    uid: int,
    gid: int,
    mode: int,
    xattrs: dict[str, bytes],
) -> None:
    file = member(
        name, FILE, size=len(data), mode=mode, uid=uid, gid=gid, mtime_ns=mtime_ns, xattrs=xattrs
    )
    symlink = member(b"l", SYMLINK, link=link, mtime_ns=mtime_ns)
    archive = file + data + padding(len(data)) + symlink + END
    (first, content), (second, _) = read(archive)
    assert content == data
    assert (first.name, first.mode, first.uid, first.gid) == (name, mode, uid, gid)
    assert first.mtime_ns == second.mtime_ns == mtime_ns
    assert first.xattrs == {key.encode(): value for key, value in xattrs.items()}
    assert second.link == link


@settings(QUICK, max_examples=60)
@given(
    name=st.text("abcé한/ ._-", min_size=1, max_size=250).map(lambda n: n.strip("/ ") or "x"),
    size=st.integers(0, 2000),
    mtime=st.integers(0, 2**33),
    uid=st.integers(0, 2**31),
    format=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_what_tarfile_writes_we_read(
    name: str, size: int, mtime: int, uid: int, format: int
) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.uid = size, mtime, uid
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        archive.addfile(info, io.BytesIO(b"x" * size))
        archive.addfile(hardlink("hard", "é" * 90))
    (file, data), (link, _) = read(out.getvalue())
    assert (file.name, file.mtime_ns, file.uid) == (name.encode(), mtime * 10**9, uid)
    assert data == b"x" * size
    assert (link.type, link.link) == (LINK, ("é" * 90).encode())


SAMPLE = b"".join(
    (
        member(b"n" * 150, FILE, size=600, mtime_ns=1_500_000_001, xattrs={"user.x": b"1"}),
        b"data" * 150 + padding(600),
        member(b"link", SYMLINK, link=b"t" * 120),
        END,
    )
)


@settings(QUICK, max_examples=300)
@given(data=st.data())
def test_damage_is_never_more_than_a_context_error(data: st.DataObject) -> None:
    archive = bytearray(SAMPLE)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(archive) - 1))
        archive[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # a header that is damaged on purpose sums up
        for at in range(0, len(archive), 512):
            block = archive[at : at + 148] + b" " * 8 + archive[at + 156 : at + 512]
            if len(block) == 512 and archive[at + 257 : at + 262] == b"ustar":
                archive[at + 148 : at + 156] = b"%06o\0 " % checksum(bytes(block))
    archive = archive[: data.draw(st.integers(0, len(archive)))]
    try:
        read(bytes(archive))
    except ContextError:
        return


@settings(QUICK, max_examples=200)
@given(st.binary(max_size=3000))
def test_anything_at_all_is_never_more_than_a_context_error(data: bytes) -> None:
    try:
        read(data)
    except ContextError:
        return


@pytest.mark.parametrize("size", [0, 1, 255, 256])
def test_checksum_is_the_sum_of_the_bytes(size: int) -> None:
    block = bytes([255]) * size + bytes(512 - size)
    assert checksum(block) == sum(block)
    assert checksum(bytes([255]) * 512) == 255 * 512


@pytest.mark.parametrize("cut", [100, 512, 1000, 1700, len(SAMPLE) - 1300])
def test_an_archive_cut_off_says_so(cut: int) -> None:
    with pytest.raises(ContextError, match="in the middle of an entry"):
        read(SAMPLE[:cut])


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("there", [0, 1, 511])
def test_the_last_padding_may_lack(taken: bool, there: int) -> None:
    """As in what the docker CLI sends for `build -f -`: neither padding nor an end."""
    whole = member(b"a", FILE, size=1) + b"1" + padding(1) + member(b"b", FILE, size=1) + b"2"
    archive = whole + bytes(there)
    if taken:
        assert [data for _, data in read(archive)] == [b"1", b"2"]
    else:
        assert [entry.name for entry in TarReader(io.BytesIO(archive))] == [b"a", b"b"]
    with pytest.raises(ContextError, match="in the middle of an entry"):
        read(whole[:-1])


def test_unread_data_is_passed_over() -> None:
    data = b"x" * 300_000
    archive = member(b"a", FILE, size=len(data)) + data + padding(len(data)) + SAMPLE
    assert [entry.name for entry in TarReader(io.BytesIO(archive))] == [b"a", b"n" * 150, b"link"]


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        (b"./", b""), (b".", b""), (b"/", b""), (b"", b""), (b"./a/", b"a"), (b"a//b", b"a/b"),
        (b"a/./b/.", b"a/b"), (b"a/../b", b"b"), (b".hidden", b".hidden"), (b"a/.b", b"a/.b"),
        (b"...", b"..."), (b"a/..b", b"a/..b"), (b"/abs", b"abs"), (b"././a", b"a"),
        (b".//a", b"a"), (b"a/b/../..", b""),
    ],
)  # fmt: skip
def test_clean(name: bytes, cleaned: bytes) -> None:
    assert clean(name) == cleaned
