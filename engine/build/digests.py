"""Digests of files, remembered by (path, inode, size, mtime, ctime) so that ten thousand
unchanged files cost a stat(2) each.

One JSON file a context below builds/cache/. Losing it costs time only. Leaves deciding which
files count to engine.build.context.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from engine.errors import Cancelled, ContextError

_CHUNK = 1024 * 1024
# Timestamps advance with the kernel's tick: a file written this shortly before it was read could
# be written again without any of its numbers changing (git calls it racily clean).
_RACY_NS = 20_000_000
_VERSION = 1
_CONTEXTS = 64

Key = tuple[int, int, int, int]


def cache_dir(builds_dir: Path) -> Path:
    """Where builds of one home keep what only saves time: `digests-*`, `files-*`; removable."""
    return builds_dir / "cache"


def keep_latest(folder: Path, pattern: str, count: int) -> None:
    """Remove all but the files last used; a file another build removes meanwhile is no harm."""
    used = []
    for path in folder.glob(pattern):
        try:
            used.append((path.stat().st_mtime_ns, path))
        except FileNotFoundError:
            continue
    for _, path in sorted(used, reverse=True)[count:]:
        path.unlink(missing_ok=True)


class DigestIndex:
    """sha256 of regular files' content; `path` None forgets at the end. Not for two threads."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, tuple[Key, str]] = {}
        self._used: dict[str, tuple[Key, str]] = {}
        self._new = 0
        if path is not None:
            self._load(path)

    @classmethod
    def of_folder(cls, builds_dir: Path, folder: Path) -> DigestIndex:
        """The index kept for `folder` from one build to the next."""
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
        return cls(cache_dir(builds_dir) / f"digests-{name}.json")

    def digest(
        self,
        path: str,
        name: str,
        status: os.stat_result,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> str:
        """Hex digest of the file at `path`, known as `name`, whose lstat is `status`.

        Raises ContextError when it cannot be read, or changes while it is read.
        """
        key = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._known.get(name)
        if known is not None and known[0] == key:
            self._used[name] = known
            return known[1]
        now = time.time_ns()
        digest, size = _hash(path, name, cancelled)
        if size != status.st_size:
            raise ContextError(
                f"a file changed while it was read: {name}",
                hint="build again when nothing writes to the context",
                entry=name,
            )
        if now - max(status.st_mtime_ns, status.st_ctime_ns) > _RACY_NS:
            self._used[name] = (key, digest)
            self._new += 1
        return digest

    def save(self) -> None:
        """Write what is worth keeping, by rename; nothing when nothing was learnt."""
        if self._path is None or not self._new:
            return
        # What this build did not look at stays: another target may.
        entries = {**self._known, **self._used}
        data = json.dumps({"version": _VERSION, "files": entries}, separators=(",", ":"))
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = self._path.with_suffix(f".{os.getpid()}-{id(self)}")
        aside.write_text(data)
        aside.rename(self._path)
        self._new = 0
        keep_latest(self._path.parent, "digests-*.json", _CONTEXTS)

    def _load(self, path: Path) -> None:
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        except ValueError:
            return  # cut short by a crash: it is learnt anew
        if data.get("version") == _VERSION:
            self._known = {
                name: ((key[0], key[1], key[2], key[3]), digest)
                for name, (key, digest) in data["files"].items()
            }


def _hash(path: str, name: str, cancelled: Callable[[], bool]) -> tuple[str, int]:
    try:
        # O_NONBLOCK and O_NOFOLLOW: lstat said it is a regular file; what if no longer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ContextError(f"cannot read {name}: {error.strerror}", entry=name) from error
    try:
        data = os.read(descriptor, _CHUNK)
        digest, size = hashlib.sha256(data), len(data)
        # A short read of a regular file is its end, which saves the second read for most.
        while len(data) == _CHUNK:
            if cancelled():
                raise Cancelled("cancelled while reading the context")
            data = os.read(descriptor, _CHUNK)
            digest.update(data)
            size += len(data)
        return digest.hexdigest(), size
    finally:
        os.close(descriptor)
