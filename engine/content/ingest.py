"""One blob on its way into the store: resumable, verified, all or nothing.

An ingest is a file `ingests/HEX` (HEX = sha256 of its ref) under an exclusive flock. Bytes are
appended and hashed; `commit` checks them, syncs the file and renames it into place, so a blob
under its digest is always whole. What fetches the bytes, and retries, is the caller's.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from pathlib import Path
from types import TracebackType

from engine.errors import Conflict, ContentCorrupt, EngineError, InvalidInput, NoSpace
from engine.oci.digest import Digest

_CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Ingest:
    """A context manager made by `ContentStore.ingest`; leaving it without `commit` is no error.

    With an `expected` digest the bytes stay on disk, and a later ingest of the same ref goes on
    at `.offset`. Without one nothing says that old and new bytes belong together, so it starts at
    0 and leaves nothing behind. `.offset == size` on entry means that there is nothing to fetch:
    `commit` at once.
    """

    def __init__(
        self,
        path: Path,
        blobs: Path,
        *,
        ref: str,
        expected: Digest | None,
        size: int | None,
        wait: bool,
    ) -> None:
        self._path = path
        self._blobs = blobs
        self._ref = ref
        self._expected = expected
        self._size = size
        self._wait = wait
        self._fd = -1
        self._present = False
        self._hash = hashlib.sha256()
        self.offset = 0

    def __enter__(self) -> Ingest:
        self._fd = _open_locked(self._path, self._ref, self._wait)
        try:
            self._resume()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fd >= 0 and (self._expected is None or self._present or not self.offset):
            self._drop()  # nothing that another could go on with
        self._close()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append. Raises NoSpace, and ContentCorrupt as soon as there is more than `size`; both
        drop the ingest."""
        view = memoryview(data).cast("B")
        if self._fd < 0 or self._present:
            raise InvalidInput(f"ingest {self._ref} takes no more data")
        if self._size is not None and self.offset + len(view) > self._size:
            self._drop()
            raise ContentCorrupt(
                f"blob {self._label} is longer than the {self._size} bytes promised",
                hint="try again; if it stays so, the registry or its proxy sends wrong data",
                ref=self._ref,
            )
        self._hash.update(view)
        try:
            while view:
                written = os.write(self._fd, view)
                self.offset += written
                view = view[written:]
        except OSError as error:
            self._drop()
            raise _failed(error, self._label) from error

    def commit(self) -> Digest:
        """Verify size and digest, sync, rename; the digest. Idempotent when the blob is there.

        Raises ContentCorrupt (the ingest is dropped) or NoSpace.
        """
        if self._present and self._expected is not None:
            return self._expected
        if self._fd < 0:
            raise InvalidInput(f"ingest {self._ref} is over")
        digest = Digest.from_hex(self._hash.hexdigest())
        if self._size is not None and self.offset != self._size:
            self._drop()
            raise ContentCorrupt(
                f"blob {self._label} has {self.offset} bytes where {self._size} were promised",
                hint="try again: the transfer ended early",
                ref=self._ref,
            )
        if self._expected is not None and digest != self._expected:
            self._drop()
            raise ContentCorrupt(
                f"blob {self._expected} has the digest {digest}",
                hint="try again; if it stays so, the registry or its proxy sends wrong data",
                ref=self._ref,
            )
        try:
            os.fchmod(self._fd, 0o444)
            os.fsync(self._fd)
            self._path.rename(self._blobs / digest.hex)
            sync_directory(self._blobs)
        except OSError as error:
            self._drop()
            raise _failed(error, self._label) from error
        self._close()
        return digest

    @property
    def _label(self) -> str:
        return str(self._expected) if self._expected is not None else self._ref

    def _resume(self) -> None:
        if self._expected is not None:
            try:
                self.offset = (self._blobs / self._expected.hex).stat().st_size
                self._present = True
                return
            except FileNotFoundError:
                pass  # the usual case: it is to be fetched
        held = os.fstat(self._fd).st_size
        if self._expected is None or (self._size is not None and held > self._size):
            os.ftruncate(self._fd, 0)
            return
        while chunk := os.read(self._fd, _CHUNK):
            self._hash.update(chunk)
            self.offset += len(chunk)

    def _drop(self) -> None:
        self._path.unlink(missing_ok=True)  # we hold its lock, so the name is still ours
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def expire(path: Path, older_than: float) -> bool:
    """Remove an ingest nobody holds, last written before `older_than` (Unix seconds)."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_mtime >= older_than or not _is_named(fd, path):
            return False
        path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def sync_directory(path: Path) -> None:
    """A rename survives a power loss only once its folder is on disk too."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _open_locked(path: Path, ref: str, wait: bool) -> int:
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed(error, ref) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise Conflict(
                f"{ref} is already being written", hint="wait until that ends", ref=ref
            ) from error
        except BaseException:
            os.close(fd)
            raise
        # Whoever held the lock may have renamed or removed the file while we waited for it.
        if _is_named(fd, path):
            return fd
        os.close(fd)


def _is_named(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _failed(error: OSError, label: str) -> NoSpace | EngineError:
    if error.errno in _FULL:
        return NoSpace(f"no space left for blob {label}", hint="free some disk space", ref=label)
    return EngineError(f"blob {label} cannot be written: {error.strerror}", ref=label)
