"""Where exit files lie: in memory, so that an end is on record also where the disk is full.

conmon has one try at writing an exit code. On a full disk it would be lost, and with it how the
container ended; podman keeps its exit folder on a tmpfs for the same reason. After a reboot it is
empty, and nothing runs: reconcile then says so on the rows.
"""

from __future__ import annotations

import ctypes
import fcntl
import os

from engine.config import EngineConfig
from engine.errors import MountFailed
from engine.snapshots.mount import unmount

# At most; one start takes 20 KB while it runs and 4 KB once it is cleaned up.
_ROOM = "128m"
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 0x2, 0x4, 0x8

_libc = ctypes.CDLL(None, use_errno=True)


def keep_in_memory(config: EngineConfig) -> None:
    """Mount a tmpfs on the home's `exits` unless one is there. Called by all who start containers
    or wait for their ends, before the first. Raises MountFailed."""
    with open(config.run_dir / "exits.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.ismount(config.exits_dir):
            return
        target = os.fsencode(config.exits_dir)
        options = f"mode=0700,size={_ROOM}".encode()
        flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        if _libc.mount(b"tmpfs", target, b"tmpfs", flags, options) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise MountFailed(
                f"cannot mount a tmpfs on {config.exits_dir}: {reason}",
                hint="mounting needs root with CAP_SYS_ADMIN",
                target=str(config.exits_dir),
            )


def let_go(config: EngineConfig) -> None:
    """Take it away with all that is in it; for a home that is given up."""
    unmount(config.exits_dir)
