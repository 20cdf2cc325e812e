"""The runtime's program in memory that nobody can write to.

runc protects its own file from what runs in a container (CVE-2019-5736): before each create and
exec it makes itself a copy, or mounts itself read-only, which takes 2 ms. A memfd with every seal
needs neither (libcontainer/nsenter/cloned_binary.c), and runc's own contrib/cmd/memfd-bind does
the same for a whole machine. One copy a process of ours, made at first use and anew when the file
has changed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from pathlib import Path

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_lock = threading.Lock()
_copies: dict[Path, tuple[tuple[int, int, int], Path]] = {}


def sealed(binary: Path) -> Path:
    """A path that `binary` can be executed by as long as this process lives."""
    found = binary.stat()
    stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
    with _lock:
        known = _copies.get(binary)
        if known is None or known[0] != stamp:
            descriptor = _copy(binary)
            # An older one stays open: somebody may be about to execute it.
            path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
            known = _copies[binary] = (stamp, path)
        return known[1]


def _copy(binary: Path) -> int:
    writable = os.memfd_create(binary.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with binary.open("rb") as source, os.fdopen(os.dup(writable), "wb") as target:
            shutil.copyfileobj(source, target)
        fcntl.fcntl(writable, fcntl.F_ADD_SEALS, _SEALS)
        # What is open for writing cannot be executed (ETXTBSY).
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)
