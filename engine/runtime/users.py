"""USER of an image, or `-u` of a run or an exec, resolved against the root's own files.

The rules are moby's user.GetExecUser. Leaves the host's users alone: no lookup ever leaves the
root (engine.runtime.rootfs), which is security case 12.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InvalidInput
from engine.runtime import rootfs

MAX_ID = 2**31 - 1
# A passwd file of this size has some 200,000 users; more is a trap, not a user base.
_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class User:
    """Numeric ids as the kernel takes them, and the home folder for $HOME."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/root"


def resolve_user(text: str, root: Path, group_add: Iterable[str] = ()) -> User:
    """`user`, `uid`, `user:group`, `uid:gid` or nothing (root) -> User.

    A name must be in the root's /etc/passwd or /etc/group; a number need not be (its group is
    then 0, its home /). Supplementary groups come with a user without an explicit group, and
    from `group_add` (names or numbers). Raises InvalidInput.
    """
    with rootfs.opened(root) as folder:
        passwd = rootfs.read_file(folder, "/etc/passwd", _MAX_BYTES) or b""
        group = rootfs.read_file(folder, "/etc/group", _MAX_BYTES) or b""
    return match_user(text, passwd, group, group_add)


def match_user(text: str, passwd: bytes, group: bytes, group_add: Iterable[str] = ()) -> User:
    """The same on the files' content: pure."""
    user_part, separator, group_part = text.partition(":")
    user_part = user_part or "0"
    uid, gid, home, name = _user(user_part, passwd)
    more = {_group(part, group) for part in group_add}
    if separator and group_part:
        gid = _group(group_part, group)
    else:
        more |= {number for number, members in _members(group) if name in members}
    # The group itself is one of them too, as in moby since CVE-2022-36109.
    return User(uid, gid, tuple(sorted(more | {gid})), home)


def _user(part: str, passwd: bytes) -> tuple[int, int, str, str]:
    number = _number(part, "user")
    for fields in _entries(passwd, 7):
        if fields[0] == part or (number is not None and fields[2] == str(number)):
            uid, gid = _number(fields[2], "user"), _number(fields[3], "group")
            if uid is not None and gid is not None:
                return uid, gid, fields[5] or "/", fields[0]
    if number is None:
        raise InvalidInput(
            f"unable to find user {part}: no matching entries in passwd file",
            hint="add the user in the Dockerfile, or give a number",
            field="user",
            name=part,
        )
    return number, 0, "/root" if number == 0 else "/", ""


def _group(part: str, group: bytes) -> int:
    for fields in _entries(group, 3):
        if fields[0] == part:
            number = _number(fields[2], "group")
            if number is not None:
                return number
    number = _number(part, "group")
    if number is None:
        raise InvalidInput(
            f"unable to find group {part}: no matching entries in group file",
            hint="add the group in the Dockerfile, or give a number",
            field="user",
            name=part,
        )
    return number


def _members(group: bytes) -> Iterator[tuple[int, frozenset[str]]]:
    for fields in _entries(group, 4):
        number = _number(fields[2], "group")
        if number is not None and fields[3]:
            yield number, frozenset(member.strip() for member in fields[3].split(","))


def _entries(content: bytes, fields: int) -> Iterator[list[str]]:
    for line in content.decode("utf-8", "surrogateescape").splitlines():
        entry = line.strip().split(":")
        if len(entry) >= 3 and not entry[0].startswith("#"):
            yield entry + [""] * (fields - len(entry))


def _number(text: str, what: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    if number > MAX_ID:
        raise InvalidInput(
            f"{what} id out of range: {text}", hint=f"0 to {MAX_ID}", field="user", name=text
        )
    return number
