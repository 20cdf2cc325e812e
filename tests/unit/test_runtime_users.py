"""USER: moby's rules, and nothing outside the root (security case 12's pure half)."""

from __future__ import annotations

import pytest

from engine.errors import InvalidInput
from engine.runtime.users import User, match_user
from tests.rootfs import GROUP, PASSWD


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", User(0, 0, (0,), "/root")),
        ("root", User(0, 0, (0,), "/root")),
        ("app", User(1000, 1000, (29, 50, 1000), "/home/app")),
        ("1000", User(1000, 1000, (29, 50, 1000), "/home/app")),
        ("app:staff", User(1000, 50, (50,), "/home/app")),
        ("app:50", User(1000, 50, (50,), "/home/app")),
        ("app:777", User(1000, 777, (777,), "/home/app")),
        ("4242", User(4242, 0, (0,), "/")),
        ("4242:4243", User(4242, 4243, (4243,), "/")),
        (":staff", User(0, 50, (50,), "/root")),
        ("app:", User(1000, 1000, (29, 50, 1000), "/home/app")),
    ],
)
def test_users(text: str, expected: User) -> None:
    assert match_user(text, PASSWD.encode(), GROUP.encode()) == expected


@pytest.mark.parametrize("text", ["ghost", "app:ghosts", "-1", "99999999999", "0:99999999999", "٣"])
def test_unknown_or_impossible(text: str) -> None:
    with pytest.raises(InvalidInput):
        match_user(text, PASSWD.encode(), GROUP.encode())


def test_no_files_at_all() -> None:
    assert match_user("", b"", b"") == User(0, 0, (0,), "/root")
    assert match_user("7:8", b"", b"") == User(7, 8, (8,), "/")
    with pytest.raises(InvalidInput):
        match_user("root", b"", b"")


def test_broken_lines_are_passed_over() -> None:
    passwd = b"\xff\xfe\nx\n:::\nbad:x:abc:def::\n# app:x:1:1::\napp:x:5:6\n"
    assert match_user("app", passwd, b"short\napp:x:nope:app\n") == User(5, 6, (6,), "/")
