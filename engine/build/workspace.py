"""What one build has on this machine while it runs, named after it so that it can be found again.

    builds/ID/work/        mount points, heredocs, unpacked archives, hosts and resolv.conf
    snapshot build-ID-N    of step N while it is worked on; a failed RUN step's stays
    step build-ID-N        the runtime's, with its cgroup (engine.runtime.steps)
    build-ID               the owner of the address, and the network's name for the step

`clean_up` takes all of it away, also after a crash: whoever reconciles calls it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from engine.build.ports import BuildEngine
from engine.config import EngineConfig
from engine.errors import InvalidInput
from engine.runtime.steps import reap_steps

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Workspace:
    """Names and paths of one build; makes nothing by itself."""

    config: EngineConfig
    build_id: str

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.build_id):
            raise InvalidInput(f"not a build's id: {self.build_id[:100]!r}", field="build_id")

    @property
    def folder(self) -> Path:
        return self.config.builds_dir / self.build_id / "work"

    @property
    def owner(self) -> str:
        """Of the address and the network interface."""
        return f"build-{self.build_id}"

    def key(self, n: int) -> str:
        """The snapshot, and the runtime's step, of step `n`."""
        return f"build-{self.build_id}-{n}"

    def make(self, name: str) -> Path:
        """A folder below the work folder, made when it is not there."""
        path = self.folder / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


def clean_up(build_id: str, engine: BuildEngine, keep: Collection[str] = ()) -> None:
    """Take away whatever a build has left: processes, mounts, snapshots, its address, its folder.

    Idempotent. MUST NOT be called while the build runs. Snapshots in `keep` stay; without it the
    failed step's goes too. The context and the log (builds/ID) stay: they are the caller's.
    """
    workspace = Workspace(engine.config, build_id)
    reap_steps(engine.runtime)
    for _, target in list(engine.snapshots.mounts()):
        if target.is_relative_to(workspace.folder):
            engine.snapshots.unmount(target)
    prefix = f"{workspace.owner}-"
    for info in list(engine.snapshots.walk()):
        # What follows is the step's number alone: "build-7-1-2" is of the build "7-1".
        ours = info.name.startswith(prefix) and info.name.removeprefix(prefix).isdecimal()
        if info.kind == "active" and ours and info.name not in keep:
            engine.snapshots.remove(info.name)
    release_network(workspace, engine)
    shutil.rmtree(workspace.folder, ignore_errors=True)


def release_network(workspace: Workspace, engine: BuildEngine) -> None:
    """Give interface and address back. Idempotent."""
    if engine.networks is not None and engine.network is not None:
        engine.networks.detach(workspace.owner)
        if engine.addresses is not None:
            engine.addresses.release(engine.network(), workspace.owner)
