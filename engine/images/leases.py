"""Leases: what is being pulled or built, and may not be collected though no row names it yet.

    with leases.take() as lease:
        pull(..., lease=lease)        # says lease.keep(names) before it looks what is here already
        ...                           # commit the image's row
                                      # only now is the lease given back

A lease is a file of names (digests, chain ids) below `root`, under an exclusive flock of whoever
holds it: it ends with its process. One more flock, on `root/lock`, is shared by whoever adds to a
lease and exclusive to the collector (engine.images.gc), which reads the leases first and the rows
second. So what it removes was neither leased nor in a row, and nobody can come to rely on it
while it does.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.config import EngineConfig

_LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Held:
    """What all living leases say together: their ids, and the names they keep."""

    ids: frozenset[str]
    names: frozenset[str]


class Lease:
    """Made by `Leases.take`; thread safe."""

    def __init__(self, leases: Leases, identity: str, fd: int) -> None:
        self.id = identity
        self._leases = leases
        self._fd = fd

    def keep(self, *names: str) -> None:
        """Until the lease ends none of these is collected. MUST be said before looking whether
        they are here; waits while a collection runs (a second or two at most)."""
        with self._leases.locked(fcntl.LOCK_SH):
            os.write(self._fd, "".join(f"{name}\n" for name in names).encode())


class Leases:
    """The leases of one home; several processes may use one root at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    @classmethod
    def of(cls, config: EngineConfig) -> Leases:
        return cls(config.content_dir / "leases")

    @contextmanager
    def take(self) -> Iterator[Lease]:
        identity = secrets.token_hex(8)
        path = self._root / identity
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        with self.locked(fcntl.LOCK_SH):
            fd = os.open(path, flags, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield Lease(self, identity, fd)
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)

    @contextmanager
    def collecting(self) -> Iterator[Held]:
        """Nobody adds to a lease meanwhile; leases of dead processes are taken away first."""
        with self.locked(fcntl.LOCK_EX):
            held = [path for path in self._root.iterdir() if path.name != _LOCK]
            living = [path for path in held if not _reap(path)]
            names: set[str] = set()
            for path in living:
                try:
                    names.update(path.read_text().split())
                except FileNotFoundError:
                    continue  # given back just now, its row committed before
            yield Held(frozenset(path.name for path in living), frozenset(names))

    @contextmanager
    def locked(self, operation: int) -> Iterator[None]:
        fd = os.open(self._root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, operation)
            yield
        finally:
            os.close(fd)


def _reap(path: Path) -> bool:
    """Remove a lease that nobody holds any more; whether it was one."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)
