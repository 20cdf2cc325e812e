"""The log's lines as frames: the fast way says the same as the careful one."""

from __future__ import annotations

import random
import struct

import pytest

from engine.api import frames
from engine.api.frames import Format, convert
from engine.api.keys import DEFAULT, Escape, parse
from engine.errors import InvalidInput

STAMP = "2026-11-24T13:31:12.{:09d}"


def log(*entries: tuple[str, str, bytes]) -> bytes:
    """(stream, tag, text) each as conmon writes it."""
    return b"".join(
        f"{STAMP.format(number)}+00:00 {stream} {tag} ".encode() + text + b"\n"
        for number, (stream, tag, text) in enumerate(entries)
    )


def split(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        number, length = struct.unpack_from(">BxxxI", data)
        found.append((number, data[8 : 8 + length]))
        data = data[8 + length :]
    return found


def random_log(seed: int) -> bytes:
    chance = random.Random(seed)
    entries = []
    for _ in range(chance.randrange(1, 200)):
        stream = "stdout" if chance.random() < 0.8 else "stderr"
        tag = "P" if chance.random() < chance.choice([0, 0.02, 0.3]) else "F"
        size = chance.choice([0, 1, 5, 60, 8000])
        text = bytes(chance.choices(b"ab P \xff\x00", k=size))
        entries.append((stream, tag, text))
    return log(*entries)


@pytest.mark.parametrize("seed", range(60))
def test_both_ways_say_the_same(seed: int) -> None:
    data = random_log(seed)
    for form in (
        Format(lines=True),
        Format(lines=True, timestamps=True, details=b"a=1 "),
        Format(lines=True, stderr=False),
        Format(lines=True, stdout=False),
    ):
        careful, taken = frames._any_lines(form, data, True)
        assert convert(form, data, final=True) == (careful, taken)
        # In pieces, as a reader gets them, the same texts come of it.
        whole, at = b"", 0
        while at < len(data):
            end = min(len(data), at + random.Random(seed + at).randrange(9000, 40_000))
            block, consumed = convert(form, data[at:end], final=end == len(data))
            assert consumed or end < len(data)
            whole += block
            at += consumed
            if not consumed:
                block, consumed = convert(form, data[at:], final=True)
                whole, at = whole + block, at + consumed
        if not form.timestamps:
            for number in (1, 2):
                one, other = (
                    b"".join(text for stream, text in split(out) if stream == number)
                    for out in (whole, careful)
                )
                assert one == other


def test_lines_wait_for_their_end_and_output_does_not() -> None:
    data = log(("stdout", "F", b"one"), ("stdout", "P", b"two"))
    taken = data.index(b"\n") + 1
    assert convert(Format(lines=True), data, final=False) == (b"\1\0\0\0\0\0\0\4one\n", taken)
    assert split(convert(Format(lines=True), data, final=True)[0])[1] == (1, b"two")
    assert convert(Format(), data, final=False) == (b"\1\0\0\0\0\0\0\7one\ntwo", len(data))
    assert convert(Format(framed=False), data, final=False) == (b"one\ntwo", len(data))


def test_streams_are_told_apart_and_left_out() -> None:
    data = log(("stdout", "F", b"a"), ("stderr", "F", b"b"), ("stderr", "F", b"c"))
    assert split(convert(Format(), data, final=False)[0]) == [(1, b"a\n"), (2, b"b\nc\n")]
    assert split(convert(Format(stdout=False), data, final=False)[0]) == [(2, b"b\nc\n")]
    assert split(convert(Format(lines=True, stderr=False), data, final=False)[0]) == [(1, b"a\n")]


def test_what_no_conmon_wrote_comes_as_it_is() -> None:
    data = log(("stdout", "F", b"a")) + b"half a li2026-\n" + log(("stderr", "F", b"b"))
    found = split(convert(Format(lines=True), data, final=False)[0])
    assert found == [(1, b"a\n"), (1, b"half a li2026-\n"), (2, b"b\n")]


@pytest.mark.parametrize("cuts", [[8192] * 4 + [7232], [4096, 20480, 15424], [40000]])
def test_long_lines_are_messages_of_16_kib_wherever_conmon_cut_them(cuts: list[int]) -> None:
    data = log(*[("stdout", "P", b"x" * size) for size in cuts], ("stdout", "F", b""))
    found, taken = convert(Format(lines=True), data, final=False)
    assert taken == len(data)
    assert [len(text) for _, text in split(found)] == [16384, 16384, 7233]
    stamped = split(convert(Format(lines=True, timestamps=True), data, final=False)[0])
    # Each has the time of the piece it begins in.
    begins = [max(n for n in range(len(cuts)) if sum(cuts[:n]) <= at) for at in (0, 16384, 32768)]
    assert [text[:31].decode() for _, text in stamped] == [
        f"{STAMP.format(number)}Z " for number in begins
    ]


def test_a_line_that_does_not_end_goes_out_before_it_is_held_for_ever() -> None:
    data = log(*[("stdout", "P", b"x" * 8192)] * 3)
    found, taken = convert(Format(lines=True), data, final=False)
    assert (taken, [len(text) for _, text in split(found)]) == (len(data), [16384, 8192])


def test_detach_keys() -> None:
    assert parse("") == DEFAULT == parse("ctrl-p,ctrl-q")
    assert parse("ctrl-a,x,ctrl-[") == b"\x01x\x1b"
    for wrong in ("ctrl-9", "ctrl-", "ab", "ctrl-p,,x"):
        with pytest.raises(InvalidInput):
            parse(wrong)


@pytest.mark.parametrize(
    ("typed", "passed", "left"),
    [
        ([b"abc"], b"abc", False),
        ([b"a\x10\x11b"], b"a", True),
        ([b"a\x10", b"\x11"], b"a", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
    ],
)
def test_the_sequence_is_found_across_packets(
    typed: list[bytes], passed: bytes, left: bool
) -> None:
    escape = Escape(DEFAULT)
    found = [escape.feed(data) for data in typed]
    assert (b"".join(data for data, _ in found), found[-1][1]) == (passed, left)
