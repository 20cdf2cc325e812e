"""What past COPY and ADD steps copied, file by file: to say what changed, and to copy less.

Kept by content digest below builds/cache/; losing one costs the names in a reason, and time.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from engine.build.context import Entry, Listing
from engine.build.copy import Twin, listed_as
from engine.build.digests import keep_latest


class Listings:
    """Listings ({path: what counts about it}) by their digest; the two hundred used last."""

    _KEPT = 200

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, digest: str, lines: dict[str, str]) -> None:
        path = self._path(digest)
        if path.exists():
            os.utime(path)
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}-{id(lines)}")
        aside.write_text(json.dumps(lines, separators=(",", ":")))
        aside.rename(path)
        keep_latest(self._folder, "files-*.json", self._KEPT)

    def load(self, digest: str) -> dict[str, str] | None:
        if not digest:
            return None
        try:
            found = json.loads(self._path(digest).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return {str(path): str(line) for path, line in found.items()}

    def _path(self, digest: str) -> Path:
        return self._folder / f"files-{digest}.json"


def twins(layer: Path, before: Mapping[str, str], now: Mapping[str, str]) -> Twin:
    """Finds files of `layer`, made from the listing `before`, that are what an entry of the
    listing `now` would become: same content, mode and owner by the listings, same time and size
    on disk."""

    def twin(listing: Listing, entry: Entry, path: str) -> str | None:
        name = listed_as(listing, entry)
        line = now.get(name)
        if line is None or before.get(name) != line:
            return None
        found = f"{layer}/{path}"
        try:
            status = os.lstat(found)
        except OSError:
            return None
        # The listing says what was copied; the disk, that it lies here and has the same time.
        same = (status.st_size, status.st_mtime_ns, status.st_uid, status.st_gid, status.st_mode)
        if same != (entry.size, entry.mtime_ns, entry.uid, entry.gid, stat.S_IFREG | entry.mode):
            return None
        return found

    return twin
