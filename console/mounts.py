"""A private mount namespace in which an unprivileged user can reach the few trees it needs.

A clone below /root (mode 0700) runs as root but web does not: it could enter neither the code nor
the interpreter. Rather than loosen that folder, web gets a view in which an empty, read-only
folder lies over it and just the needed trees are bound in. The namespace ends with its processes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import MountFailed

# <linux/mount.h>, <linux/sched.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND = 1, 2, 4, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2
CLONE_NEWNS = 0x20000

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Tree:
    path: Path
    writable: bool = False


def closed_folder(path: Path, user: pwd.struct_passwd) -> Path | None:
    """The topmost folder above `path` that `user` may not enter; None when all are open."""
    for folder in reversed(path.parents):
        status = folder.stat()
        if status.st_uid == user.pw_uid:
            allowed = status.st_mode & stat.S_IXUSR
        elif status.st_gid == user.pw_gid:
            allowed = status.st_mode & stat.S_IXGRP
        else:
            allowed = status.st_mode & stat.S_IXOTH
        if not allowed:
            return folder
    return None


def enter(trees: Sequence[Tree], user: pwd.struct_passwd) -> bool:
    """Make every tree reachable for `user`, in a new mount namespace if that needs one.

    Returns whether it did; the calling process (and what it starts) then lives in it. Trees must
    be resolved paths. Raises MountFailed."""
    closed = {folder for tree in trees if (folder := closed_folder(tree.path, user))}
    if not closed:
        return False
    _check(_libc.unshare(CLONE_NEWNS), "unshare", Path("/"))
    _mount("none", Path("/"), None, MS_REC | MS_PRIVATE)
    _release([tree.path for tree in trees])
    for folder in sorted(closed):
        _cover(folder, [tree for tree in trees if folder in tree.path.parents])
    return True


def _release(trees: Sequence[Path]) -> None:
    """Let go of others' mounts: a copy of a container's root file system or of a network
    namespace kept in here would outlive its removal outside."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        fields, _, rest = line.partition(" - ")
        target = Path(fields.split()[4].encode().decode("unicode_escape"))
        needed = any(target == tree or target in tree.parents for tree in trees)
        below = any(tree in target.parents for tree in trees)
        if needed or not (below or rest.split()[0] in ("overlay", "nsfs")):
            continue
        if _libc.umount2(os.fsencode(target), MNT_DETACH) and ctypes.get_errno() != errno.EINVAL:
            # EINVAL: it went with a mount above it.
            _check(-1, "umount", target)


def _cover(folder: Path, trees: Sequence[Tree]) -> None:
    """An empty folder over `folder`, with `trees` bound to where they were."""
    handles = [(tree, os.open(tree.path, os.O_PATH | os.O_CLOEXEC)) for tree in trees]
    _mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    for tree, handle in handles:
        source, target = f"/proc/self/fd/{handle}", tree.path
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        _mount(source, target, None, MS_BIND)
        if not tree.writable:
            _mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
        os.close(handle)
    _mount("none", folder, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _mount(source: str, target: Path, kind: str | None, flags: int, data: str = "") -> None:
    result = _libc.mount(
        source.encode(),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _check(result, "mount", target)


def _check(result: int, call: str, path: Path) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise MountFailed(f"{call} {path}: {os.strerror(error)}", path=str(path))
