"""Layers in and out of compression: every kind, cut, damaged, abandoned; digests on the way."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from engine.content import ContentStore
from engine.errors import ContextError, InvalidInput, Unsupported
from engine.oci.digest import Digest
from engine.snapshots import LayerWriter, apply_layer, open_layer, write_layer
from tests.tars import make_tar, member

Pack = Callable[[bytes], bytes]

TAR = make_tar((member("text"), b"quay\n" * 60_000), (member("noise"), os.urandom(300_000)))
PLAIN = TAR.getvalue()
PACKS: dict[str, Pack] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}
ALL = pytest.mark.parametrize("kind", PACKS)
COMPRESSED = pytest.mark.parametrize("kind", sorted(PACKS.keys() - {"plain"}))


class Trickle(io.RawIOBase):
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._stream = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(min(size, 1001))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decompress")]


@ALL
def test_every_kind_is_told_by_its_first_bytes(tmp_path: Path, kind: str) -> None:
    data = PACKS[kind](PLAIN)
    (tmp_path / "layer").write_bytes(data)
    for source in (tmp_path / "layer", io.BytesIO(data), Trickle(data)):
        with open_layer(source, "application/vnd.oci.image.layer.v1.tar+gzip") as layer:
            assert layer.read() == PLAIN
            assert layer.finish() == Digest.of(PLAIN)
    assert threads() == []


@COMPRESSED
def test_members_one_after_another_and_zeros_behind(kind: str) -> None:
    """pigz, estargz and zstd:chunked write many; some writers pad with zeros."""
    pack = PACKS[kind]
    data = b"".join(pack(PLAIN[at : at + 70_001]) for at in range(0, len(PLAIN), 70_001))
    if kind == "zstd":
        data += b"\x50\x2a\x4d\x18" + (100).to_bytes(4, "little") + bytes(100)
    else:
        data += bytes(300_000)
    with open_layer(io.BytesIO(data)) as layer:
        assert layer.finish() == Digest.of(PLAIN)


@COMPRESSED
def test_cut_off_data_is_an_error(kind: str) -> None:
    data = PACKS[kind](PLAIN)
    for length in (len(data) // 2, len(data) - 1, 10):
        with (
            pytest.raises(ContextError, match=r"damaged|middle of an entry"),
            open_layer(io.BytesIO(data[:length])) as layer,
        ):
            list_all(layer.read)
    assert threads() == []


def list_all(read: Callable[[int], bytes]) -> None:
    while read(1 << 16):
        pass


@COMPRESSED
def test_damaged_data_is_an_error(kind: str) -> None:
    data = bytearray(PACKS[kind](PLAIN))
    data[len(data) // 2 : len(data) // 2 + 8] = b"damage!!"
    if kind == "zstd":  # without a checksum in it, zstd may not notice; the diff_id does
        with open_layer(io.BytesIO(data)) as layer:
            try:
                assert layer.finish() != Digest.of(PLAIN)
            except ContextError:
                return
        return
    with pytest.raises(ContextError, match="damaged"), open_layer(io.BytesIO(data)) as layer:
        layer.finish()


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
@pytest.mark.parametrize("junk", [b"junk", b"\0\0j", b"\x1f"])
def test_something_behind_the_data_is_an_error(kind: str, junk: bytes) -> None:
    with (
        pytest.raises(ContextError, match="something else follows"),
        open_layer(io.BytesIO(PACKS[kind](PLAIN) + junk)) as layer,
    ):
        layer.finish()


@pytest.mark.parametrize("data", [b"", b"\x1f", b"PK\3\4" + bytes(600), b"hello" * 200])
def test_what_is_no_archive_says_so(tmp_path: Path, data: bytes) -> None:
    with open_layer(io.BytesIO(data)) as layer:
        if data:
            with pytest.raises(
                ContextError, match=r"no tar at all|middle of an entry|cannot be read"
            ):
                apply_layer(layer, tmp_path)
        else:
            assert apply_layer(layer, tmp_path).entries == 0


def test_an_encrypted_layer_is_refused_by_its_type() -> None:
    with pytest.raises(Unsupported, match="encrypted"):
        open_layer(io.BytesIO(b""), "application/vnd.oci.image.layer.v1.tar+gzip+encrypted")


def test_errors_of_the_source_come_through_as_they_are() -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            raise ConnectionResetError(104, "connection reset")

    with pytest.raises(ConnectionResetError), open_layer(Broken()) as layer:
        layer.read(10)


def test_a_reader_that_stops_early_leaves_no_thread_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "layer.gz").write_bytes(gzip.compress(bytes(64 << 20), 1))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with open_layer(tmp_path / "layer.gz") as layer:
            layer.read(10)
    with open_layer(tmp_path / "layer.gz"):
        pass
    assert threads() == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_follows_the_end_mark_counts_for_the_diff_id(tmp_path: Path) -> None:
    padded = PLAIN + bytes(100_000)
    with open_layer(io.BytesIO(gzip.compress(padded))) as layer:
        apply_layer(layer, tmp_path)
        assert layer.finish() == Digest.of(padded)


def test_a_layer_is_written_with_all_its_digests(tmp_path: Path) -> None:
    content = ContentStore(tmp_path / "content")
    with content.ingest("layer") as ingest:
        writer = LayerWriter(ingest)
        for at in range(0, len(PLAIN), 123_457):
            writer.write(PLAIN[at : at + 123_457])
        written = writer.commit()
    blob = content.read(written.digest)
    assert written.size == len(blob) == content.info(written.digest).size
    assert written.tar_size == len(PLAIN)
    assert written.diff_id == Digest.of(PLAIN)
    assert gzip.decompress(blob) == PLAIN
    assert blob[:4] == b"\x1f\x8b\x08\0"
    assert blob[4:8] == bytes(4), "no time in the header"
    subprocess.run(["gzip", "-t"], input=blob, check=True)


def test_the_blob_does_not_depend_on_how_it_was_cut(tmp_path: Path) -> None:
    content = ContentStore(tmp_path / "content")
    digests = set()
    for step in (511, 65_536, 300_000, len(PLAIN)):
        with content.ingest("layer") as ingest:
            writer = LayerWriter(ingest)
            for at in range(0, len(PLAIN), step):
                writer.write(PLAIN[at : at + step])
            digests.add(writer.commit().digest)
    assert len(digests) == 1


def test_a_layer_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    content = ContentStore(tmp_path / "content")
    (tmp_path / "upper" / "z").mkdir(parents=True)
    (tmp_path / "upper" / "big").write_bytes(os.urandom(8 << 20))
    (tmp_path / "upper" / "z" / ".wh.x").touch()
    with pytest.raises(InvalidInput), content.ingest("layer") as ingest:
        write_layer(tmp_path / "upper", LayerWriter(ingest))
    assert list(content.walk()) == []
    assert list((tmp_path / "content" / "ingests").iterdir()) == []


def test_there_and_back_through_the_store(tmp_path: Path) -> None:
    content = ContentStore(tmp_path / "content")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    for number in range(300):
        (tmp_path / "one" / f"f{number}").write_bytes(hashlib.sha256(b"%d" % number).digest() * 500)
    digests = []
    for name in ("one", "two"):
        with content.ingest(name) as ingest:
            writer = LayerWriter(ingest)
            write_layer(tmp_path / name, writer)
            digests.append(writer.commit())
        if name == "one":
            with open_layer(content.path(digests[0].digest)) as layer:
                apply_layer(layer, tmp_path / "two")
                assert layer.finish() == digests[0].diff_id
    assert digests[0] == digests[1]
