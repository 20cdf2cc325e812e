"""What a start leaves behind, also one that was killed half-way: ended and taken away.

Whether it may be, and what is written down of it, is left to lifecycle.
"""

from __future__ import annotations

import signal

from engine.config import EngineConfig
from engine.containers.attempts import Attempt
from engine.containers.binds import Stage
from engine.containers.layout import ContainerDir
from engine.containers.plumbing import Network, beside
from engine.runtime.oci_runtime import OCIRuntime
from engine.runtime.processes import ProcessRef
from engine.snapshots.mount import unmount
from engine.snapshots.protocol import Snapshotter

# How long a process may take to die of SIGKILL, and conmon to report it and leave.
DEATH_SECONDS = 5.0


class Remains:
    """Each step is idempotent. The caller holds the directory's lock."""

    def __init__(
        self,
        config: EngineConfig,
        snapshots: Snapshotter,
        runtime: OCIRuntime,
        network: Network | None,
    ) -> None:
        self._config = config
        self._snapshots = snapshots
        self._runtime = runtime
        self._network = network

    def end(self, attempt: Attempt) -> None:
        """What still lives of this start ends here; after a proper exit that is conmon alone."""
        supervisor = attempt.processes()[0]
        if attempt.started() is None:
            # Half started: nothing may be made any more behind the purge.
            attempt.end_strays(DEATH_SECONDS)
        if attempt.exit() is None:
            self._runtime.purge(attempt.id)
        if supervisor is not None:
            outlast(supervisor)

    def clear(self, directory: ContainerDir) -> None:
        """Runtime, network, mounts and cgroup of what has ended. Raises what its parts raise."""
        with beside(lambda: self._release(directory.id)):
            self._runtime.purge(directory.id)
            self._snapshots.unmount(directory.rootfs)
            Stage(self._config, directory.id).clear()
            if directory.shm.exists():
                unmount(directory.shm)
                directory.shm.rmdir()

    def _release(self, id: str) -> None:
        if self._network is not None:
            self._network.release(id)


def outlast(supervisor: ProcessRef) -> None:
    """conmon leaves at once after its container, unless a client of its that does not read holds
    it up: then it is killed."""
    if not supervisor.wait(DEATH_SECONDS):
        supervisor.send(signal.SIGKILL)
        supervisor.wait(DEATH_SECONDS)
