"""Logs: lines, offsets that outlive rotations, gaps, tail, times; decoding for terminals."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.containers.loglines import decode_tty, parse_lines
from engine.containers.logs import Gap, Limits, LogReader, rotate
from engine.containers.watch import FolderWatcher

BASE = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


def line(text: str, tag: str = "F", stream: str = "stdout", second: int = 0) -> bytes:
    time = (BASE + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S.%f000+00:00")
    return f"{time} {stream} {tag} {text}\n".encode()


def append(folder: Path, data: bytes) -> None:
    with open(folder / "current", "ab") as file:
        file.write(data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "log"
    made.mkdir()
    return made


def everything(folder: Path, start: int = 0, limit: int = 65536) -> bytes:
    data = b""
    with LogReader(folder) as reader:
        while (chunk := reader.read(start + len(data), limit)).data:
            assert chunk.gap is None and chunk.offset == start + len(data)
            data += chunk.data
    return data


def test_lines_and_the_beginning_of_the_next() -> None:
    data = line("one") + line("two", "P", "stderr") + b"2026-11"
    lines, consumed = parse_lines(data, 100)
    assert consumed == len(data) - 7
    assert [(entry.text, entry.stream, entry.partial) for entry in lines] == [
        (b"one", "stdout", False),
        (b"two", "stderr", True),
    ]
    assert lines[0].offset == 100 and lines[1].end == 100 + consumed
    assert lines[0].time == "2026-11-24T09:00:00.000000000Z"


def test_lines_no_conmon_wrote_are_shown_as_they_are() -> None:
    cut = b"2026-11-24T09:00:00.000000000+00:00 stdout P cu2026"
    lines, _ = parse_lines(b"\n" + cut + b"\nwithout dress\n" + line("x"))
    assert [entry.text for entry in lines] == [b"", b"cu2026", b"without dress", b"x"]
    assert [bool(entry.time) for entry in lines] == [False, True, False, True]


@given(
    st.lists(st.tuples(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"~")), st.booleans()))
)
@settings(deadline=None)
def test_decode_gives_back_what_was_written(pieces: list[tuple[bytes, bool]]) -> None:
    written = b"".join(text + (b"\n" if full else b"") for text, full in pieces)
    head = b"2026-11-24T09:00:00.000000000+00:00 stdout "
    log = b"".join(head + (b"F " if full else b"P ") + text + b"\n" for text, full in pieces)
    assert decode_tty(log) == (written, len(log))
    assert decode_tty(log + head) == (written, len(log))


def test_an_empty_or_missing_log(tmp_path: Path) -> None:
    with LogReader(tmp_path / "none") as reader:
        assert reader.bounds() == (0, 0)
        assert reader.read(0).data == b"" and reader.read(500).offset == 0
        assert reader.tail(10) == 0 and reader.seek_time(BASE) == 0


def test_offsets_outlive_rotations(folder: Path) -> None:
    written = b""
    for number in range(200):
        data = line(f"line {number}", second=number)
        append(folder, data)
        written += data
        if number % 20 == 19:
            assert rotate(folder, folder, Limits(part_bytes=100, parts=100))
    assert len(list(folder.iterdir())) == 10  # no conmon: `current` comes with the next write
    append(folder, line("last"))
    written += line("last")
    for start in (0, 1, 1000, len(written) - 5):
        assert everything(folder, start) == written[start:]
        assert everything(folder, start, limit=37) == written[start:]
    with LogReader(folder) as reader:
        assert reader.bounds() == (0, len(written))
        assert reader.read(len(written)).data == b""
        assert reader.read(10**9).offset == len(written)


def test_what_is_dropped_is_a_gap(folder: Path) -> None:
    for number in range(10):
        append(folder, line(f"{number}"))
        rotate(folder, folder, Limits(part_bytes=1, parts=3))
    append(folder, line("end"))
    size = len(line("0"))
    with LogReader(folder) as reader:
        first, end = reader.bounds()
        assert first == 8 * size and end == 10 * size + len(line("end"))
        chunk = reader.read(3)
        assert chunk.gap == Gap(3, first) and chunk.offset == first and chunk.data == line("8")
        assert [entry.text for entry in parse_lines(everything(folder, first))[0]] == [
            b"8",
            b"9",
            b"end",
        ]


def test_a_follower_reads_through_a_rotation(folder: Path) -> None:
    """The order of a rotation beside a living conmon: rename, more into the old file, reopen."""
    with LogReader(folder) as reader, open(folder / "current", "ab", buffering=0) as old:
        old.write(line("a"))
        assert reader.read(0).data == line("a")
        offset = len(line("a"))
        assert rotate(folder, folder, Limits(part_bytes=1))
        old.write(line("b"))
        assert reader.read(offset).data == line("b")
        offset += len(line("b"))
        assert reader.read(offset).data == b""
        # conmon makes the new file aside and renames it.
        (folder / "current.tmp").write_bytes(b"")
        (folder / "current.tmp").rename(folder / "current")
        append(folder, line("c"))
        chunk = reader.read(offset)
        assert (chunk.offset, chunk.data) == (offset, line("c"))


def test_a_rotation_killed_in_the_middle_is_finished(folder: Path) -> None:
    append(folder, line("a"))
    (folder / "current").rename(folder / f"{0:020}")
    os.mkfifo(folder / "ctl")
    listening = os.open(folder / "ctl", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert not rotate(folder, folder)
        assert os.read(listening, 100) == b"2 0 0\n"
    finally:
        os.close(listening)


def test_tail_counts_lines_not_pieces(folder: Path) -> None:
    lines = [line("x" * (number % 900), second=number) for number in range(1000)]
    for number, entry in enumerate(lines):
        append(folder, entry)
        if number % 400 == 399:
            rotate(folder, folder, Limits(part_bytes=1))
    with LogReader(folder) as reader:
        total = sum(map(len, lines))
        for count in (0, 1, 2, 10, 399, 999, 1000, 5000):
            kept = lines[len(lines) - count :] if 0 < count <= 1000 else lines if count else []
            assert reader.tail(count) == total - sum(map(len, kept)), count
    append(folder, line("pie", "P") + line("ce", "P") + line("!") + line("open", "P"))
    with LogReader(folder) as reader:
        assert [entry.text for entry in reader.read_lines(reader.tail(1))[0]] == [b"open"]
        assert [entry.text for entry in reader.read_lines(reader.tail(2))[0]] == [
            b"pie",
            b"ce",
            b"!",
            b"open",
        ]


def test_seek_time(folder: Path) -> None:
    for number in range(3000):
        append(folder, line(f"{number}", second=number))
        if number % 1000 == 999:
            rotate(folder, folder, Limits(part_bytes=1))
    with LogReader(folder) as reader:
        for second in (0, 1, 999, 1000, 1500, 2999):
            offset = reader.seek_time(BASE + timedelta(seconds=second))
            assert reader.read_lines(offset)[0][0].text == str(second).encode()
        assert reader.seek_time(BASE - timedelta(days=1)) == 0
        assert reader.seek_time(BASE + timedelta(days=1)) == reader.bounds()[1]


async def test_watcher_wakes_all_who_follow(folder: Path, tmp_path: Path) -> None:
    watcher = FolderWatcher()
    with watcher.subscribe(folder) as one, watcher.subscribe(folder, tmp_path) as two:
        append(folder, b"x\n")
        await asyncio.wait_for(asyncio.gather(one.changed(), two.changed()), 5)
        (tmp_path / "new").write_text("")
        await asyncio.wait_for(two.changed(), 5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.changed(), 0.02)
    with pytest.raises(FileNotFoundError):
        watcher.subscribe(folder / "none")
    watcher.close()
