"""Progress of a transfer: workers write it down, one thread passes it on.

The receiver may write rows or talk to Redis, so it is called from the caller's thread only, a few
times a second, and once more at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "resolving",
    "exists",
    "downloading",
    "extracting",
    "done",
    "preparing",
    "pushing",
    "pushed",
    "mounted",
]


@dataclass(frozen=True, slots=True)
class Progress:
    """Of one layer (`digest`, bytes as compressed); `resolving` has no digest and no bytes, and
    `mounted` a `source`, the repository it was taken from."""

    kind: Kind
    digest: str = ""
    current: int = 0
    total: int = 0
    source: str = ""


class Board:
    """The last progress of each layer. Thread safe."""

    def __init__(self, receiver: Callable[[Progress], None]) -> None:
        self._receiver = receiver
        self._lock = threading.Lock()
        self._changed: dict[str, Progress] = {}

    def note(self, progress: Progress) -> None:
        with self._lock:
            self._changed[progress.digest] = progress

    def publish(self) -> None:
        """Pass on what changed since the last time, in the order of first change."""
        with self._lock:
            changed, self._changed = self._changed, {}
        for progress in changed.values():
            self._receiver(progress)
