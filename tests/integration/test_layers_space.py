"""A full disk: NoSpace, nothing half made, and the space is there again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.content import ContentStore
from engine.errors import NoSpace
from engine.oci.digest import Digest
from engine.snapshots import OverlaySnapshotter, apply_layer
from tests.tars import make_tar, member

DATA = bytes(range(256)) * 16_384  # 4 MiB


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB and 60 files."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=60", "tmpfs", place], check=True
    )
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def used(place: Path) -> int:
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


@pytest.mark.parametrize("expected", [Digest.of(DATA), None])
def test_a_blob_that_does_not_fit(small: Path, expected: Digest | None) -> None:
    store = ContentStore(small / "content")
    kept = store.put(b"kept")
    full = pytest.raises(NoSpace, match="no space left for blob")
    with full, store.ingest("r", expected, len(DATA)) as ingest:
        for at in range(0, len(DATA), 100_000):
            ingest.write(DATA[at : at + 100_000])
    assert [info.digest for info in store.walk()] == [kept]
    assert used(small) == 4
    assert store.put(DATA[: 1 << 20])


def test_a_layer_that_does_not_fit(small: Path) -> None:
    snapshots = OverlaySnapshotter(small / "snapshots")
    before = used(small)
    for entries in ([(member("a"), DATA)], [member(f"f{number}") for number in range(80)]):
        snapshots.prepare("extract", None)
        with pytest.raises(NoSpace, match="no space left to unpack"):
            apply_layer(make_tar(*entries), snapshots.upper("extract"))
        snapshots.remove("extract")
        assert used(small) == before


def test_a_snapshot_on_a_full_disk(small: Path) -> None:
    snapshots = OverlaySnapshotter(small / "snapshots")
    number = 0
    with pytest.raises(NoSpace, match="no space left for snapshot"):
        while True:
            snapshots.prepare(f"k{number}", None)
            number += 1
    assert number > 3
    assert sorted(info.name for info in snapshots.walk()) == sorted(f"k{n}" for n in range(number))
    assert snapshots.sweep() == 0
    snapshots.remove("k0")
    snapshots.prepare("again", None)
