"""Where a terminal's replay begins, and with which modes."""

from __future__ import annotations

import pytest

from engine.streams.replay import REPLAY_BYTES, Piece, joined, replay, screen_start


@pytest.mark.parametrize(
    ("data", "start", "prefix"),
    [
        (b"plain\r\n", 0, b""),
        (b"old\x1b[H\x1b[2Jnew", 6, b""),
        (b"old\x1b[H\x1b[Jnew", 3, b""),
        (b"old\x1b[H\x1b[2J\x1b[3Jnew", 10, b""),
        (b"old\x1bcnew", 3, b""),
        # vi: on the alternate screen, begin where it was entered, however often it clears there.
        (b"shell\x1b[?1049h\x1b[2Jfile\x1b[2Jmore", 5, b""),
        # vi has been left: what stands on the main screen counts again.
        (b"\x1b[2Jshell\x1b[?1049h\x1b[2Jfile\x1b[?1049lback", 0, b""),
        # Modes set before the beginning hold there; back to normal is no mode.
        (b"\x1b[?1h\x1b=\x1b[?2004hx\x1b[2Jy", 16, b"\x1b[?1h\x1b[?2004h\x1b="),
        (b"\x1b[?25lx\x1b[?25hy\x1b[2Jz", 14, b""),
        (b"\x1b[?25lx\x1b[2Jz", 7, b"\x1b[?25l"),
        (b"\x1b[?1000;1006hx\x1b[?1049hz", 14, b"\x1b[?1000h\x1b[?1006h"),
        # A reset forgets them all.
        (b"\x1b[?1h\x1bcx\x1b[2Jy", 8, b""),
    ],
)
def test_the_screen_starts_at_its_last_clear_or_switch(
    data: bytes, start: int, prefix: bytes
) -> None:
    assert screen_start(data) == (start, prefix)


def test_replay_is_bounded_and_begins_with_a_line() -> None:
    pieces = [Piece(b"x" * 999 + b"\n", end * 1000) for end in range(1, 1001)]
    result = replay(pieces, whole=True)
    size = sum(len(piece.text) for piece in result)
    assert REPLAY_BYTES - 2000 < size <= REPLAY_BYTES
    assert result[-1] == pieces[-1]
    assert result[0].text.startswith(b"x") and result[0].text.endswith(b"\n")


def test_a_cut_replay_never_begins_inside_a_sequence() -> None:
    pieces = [Piece(b"0m half a sequence\nwhole line\n", 10), Piece(b"next\n", 20)]
    assert replay(pieces, whole=False) == [Piece(b"whole line\n", 10), Piece(b"next\n", 20)]
    assert replay(pieces, whole=True) == pieces


def test_the_prefix_goes_before_the_first_piece_that_is_sent() -> None:
    pieces = [Piece(b"\x1b[?1hold\n", 10), Piece(b"\x1b[2Jnew\n", 20)]
    assert replay(pieces, whole=True) == [Piece(b"\x1b[?1h\x1b[2Jnew\n", 20)]


def test_nothing_to_replay() -> None:
    assert replay([], whole=True) == []


def test_joined_pieces_keep_every_byte_and_the_last_offset() -> None:
    pieces = [Piece(b"a" * 30, 1), Piece(b"b" * 30, 2), Piece(b"c" * 100, 3), Piece(b"d", 4)]
    assert joined(pieces, 64) == [
        Piece(b"a" * 30 + b"b" * 30, 2),
        Piece(b"c" * 100, 3),
        Piece(b"d", 4),
    ]
