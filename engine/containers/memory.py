"""What of a home lies in memory, so that a full disk does not matter to it: exit files, and the
name servers' folders.

conmon has one try at writing an exit code. On a full disk it would be lost, and with it how the
container ended; podman keeps its exit folder on a tmpfs for the same reason. A name server is
given its zones as files, and a container's name has to go when the container goes. After a reboot
both are empty, and nothing runs: reconcile then says so on the rows.
"""

from __future__ import annotations

import fcntl
import os

from engine.config import EngineConfig
from engine.network.manager import NetworkManager
from engine.snapshots.mount import mount_tmpfs, unmount

# At most; one start takes 20 KB while it runs and 4 KB once it is cleaned up.
_EXITS = "mode=0700,size=128m"
# A page for each network and each link, three times over.
_NAMES = "mode=0700,size=64m"


def keep_in_memory(config: EngineConfig) -> None:
    """Mount a tmpfs on the home's `exits` and one for names, unless they are there. Called by all
    who start containers or wait for their ends, before the first. Raises MountFailed."""
    with open(config.run_dir / "memory.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.ismount(config.exits_dir):
            mount_tmpfs(config.exits_dir, _EXITS)
    NetworkManager(config).keep_names_on(lambda folder: mount_tmpfs(folder, _NAMES))


def let_go(config: EngineConfig) -> None:
    """Take it away with all that is in it; for a home that is given up, and has no name server."""
    unmount(config.exits_dir)
    unmount(config.names_dir)
