"""Containers as the machine has them: create, start, signal, stop, finish, remove, observe.

Everything is told by id and *generation* (which start): what belongs to an older one is never
touched for a newer. Whoever changes a container's state holds `ContainerDir.lock`; nothing here
takes it. Killed between any two steps, what is left is something `observe` names and `finish`
takes away. Rows, restart policies and who may do what are left to services; exec and attach to
their own modules.
"""

from __future__ import annotations

import shutil
import signal as signals
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from engine.config import EngineConfig
from engine.containers import mounts
from engine.containers.attempts import LOST_CODE, Attempt, Exit, Observed, Started, Status
from engine.containers.etc import write_etc
from engine.containers.joined import joined
from engine.containers.layout import ContainerDir, write_json
from engine.containers.logs import DEFAULT_LIMITS, Limits
from engine.containers.plumbing import Network
from engine.containers.remains import DEATH_SECONDS, Remains, outlast
from engine.containers.rotation import Rotation
from engine.containers.settings import ContainerSettings
from engine.containers.starter import Given, Starter, room
from engine.containers.volumes import VolumeAt, Volumes
from engine.errors import Conflict, EngineError, NotFound, WrongState
from engine.network.spec import Attachment
from engine.runtime import cgroups, freezer
from engine.runtime.oci_runtime import OCIRuntime
from engine.runtime.rootfs import opened
from engine.snapshots.protocol import Snapshotter

__all__ = ["Containers", "Exit", "Observed", "Started"]

_NO_VOLUMES: Mapping[str, VolumeAt] = {}


class Containers:
    """All containers of one home. Several processes may use the same home at once."""

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
        self._starter = Starter(config, snapshots, runtime, network)
        self._remains = Remains(config, snapshots, runtime, network)
        self._rotation = Rotation(config)

    def create(
        self, settings: ContainerSettings, volumes: Mapping[str, VolumeAt] = _NO_VOLUMES
    ) -> None:
        """Lay out the folder, the writable layer and the volumes (by container path). Idempotent.

        Where the container exists already its settings are written anew. Raises Conflict when
        they name another image, NotFound when the layers are not here, InvalidInput, NoSpace.
        """
        with room(settings.id):
            self._create(settings, ContainerDir(self._config, settings.id), volumes)

    def _create(
        self,
        settings: ContainerSettings,
        directory: ContainerDir,
        volumes: Mapping[str, VolumeAt],
    ) -> None:
        if directory.settings.exists():
            before = ContainerSettings.from_json(directory.settings.read_bytes())
            if before == settings:
                return
            if (before.image, before.chain) != (settings.image, settings.chain):
                raise Conflict(f"container {settings.id} is of another image", id=settings.id)
        for folder in (directory.bundle, directory.rootfs, directory.log):
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        key = directory.snapshot
        if not self._snapshots.exists(key):
            self._snapshots.prepare(key, settings.chain or None)
        if mounts.to_fill(settings.host.mounts, volumes):
            # A creation before this one may have been killed with the file system mounted.
            self._snapshots.unmount(directory.rootfs)
            self._snapshots.mount(key, directory.rootfs)
            try:
                with opened(directory.rootfs) as root:
                    mounts.fill(settings.host.mounts, volumes, Volumes(self._config), root)
            finally:
                self._snapshots.unmount(directory.rootfs)
        write_json(directory.settings, settings.to_json())

    def settings(self, id: str) -> ContainerSettings:
        """Raises NotFound."""
        try:
            return ContainerSettings.from_json(ContainerDir(self._config, id).settings.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"no such container: {id}", kind="container", id=id) from error

    def start(
        self,
        id: str,
        generation: int,
        size: tuple[int, int] | None = None,
        attachments: Sequence[Attachment] = (),
        volumes: Mapping[str, VolumeAt] = _NO_VOLUMES,
    ) -> Started:
        """Start it; `size` is (columns, rows) of its terminal, from the first byte on.

        `generation` is a new one. Earlier ones are cleaned up first. When anything fails, all
        before it is undone. Raises NotFound, WrongState (an earlier one runs), Conflict (this
        generation was used), InvalidInput (no command, no such user, folder or program),
        PortTaken, NoSpace, RuntimeFailed, MountFailed, NetworkFailed.
        """
        settings = self.settings(id)
        directory = ContainerDir(self._config, id)
        for older, folder in directory.attempts().items():
            if older >= generation:
                raise Conflict(f"container {id} has had its start {older}", id=id)
            self.finish(id, older)
            shutil.rmtree(folder)
        directory.remove_execs()
        attempt = Attempt(directory.exits(generation), id)
        with room(id):
            try:
                attempt.begin()
                with (
                    mounts.runtime_mounts(
                        self._config, id, settings.host.mounts, settings.host.tmpfs, volumes
                    ) as mounted,
                    joined(self._config, directory, settings) as shared,
                ):
                    given = Given(size, attachments, mounted, shared)
                    return self._starter.start(settings, directory, attempt, given)
            except BaseException:
                self._remains.end(attempt)
                self._remains.clear(directory)
                shutil.rmtree(attempt.folder, ignore_errors=True)
                raise

    def write_etc(self, id: str, attachments: Sequence[Attachment]) -> None:
        """Tell a running container of the networks it has now. Raises NotFound, InvalidInput."""
        settings = self.settings(id)
        write_etc(
            ContainerDir(self._config, id).etc,
            settings.hostname or id[:12],
            attachments,
            settings.host,
            domainname=settings.domainname,
        )

    def signal(self, id: str, generation: int, number: int) -> None:
        """A signal for the container's first process. Raises WrongState when it does not run."""
        init = self._attempt(id, generation).processes()[1]
        if init is None or not init.send(number):
            raise WrongState(f"container {id} is not running", id=id)
        if number == signals.SIGKILL:
            self._thaw(id)

    def stop(
        self,
        id: str,
        generation: int,
        number: int,
        grace_seconds: float | None,
        killing: Callable[[], object] = lambda: None,
    ) -> None:
        """Signal `number`, SIGKILL after `grace_seconds` (None: never); return when it has ended.

        `killing` is called where the grace was not enough, before the SIGKILL.
        The exit is on disk when this returns, unless conmon itself had to be killed. Idempotent.
        Raises EngineError when it survives SIGKILL.
        """
        attempt = self._attempt(id, generation)
        supervisor, init = attempt.processes()
        if init is not None and init.send(number):
            self._thaw(id)
            if number != signals.SIGKILL and not init.wait(grace_seconds):
                killing()
                init.send(signals.SIGKILL)
            if not init.wait(DEATH_SECONDS):
                raise EngineError(f"container {id} survives SIGKILL", id=id, pid=init.pid)
        if supervisor is not None:
            outlast(supervisor)

    def exit_of(self, id: str, generation: int) -> Exit | None:
        """How this start ended; None while it has not, and where conmon left no word of it."""
        ended = self._attempt(id, generation).exit()
        return self._with_oom(ContainerDir(self._config, id), ended) if ended else None

    def _with_oom(self, directory: ContainerDir, ended: Exit) -> Exit:
        """conmon leaves a file; where it ended before it saw why, the kernel's count says it."""
        if ended.code and not ended.oom:
            oom = (directory.bundle / "oom").exists() or cgroups.oom_kills(
                self._runtime.cgroup(directory.id)
            )
            return replace(ended, oom=bool(oom))
        return ended

    def finish(self, id: str, generation: int) -> Exit | None:
        """Clean up after an end: processes, runtime, network, ports, mount, cgroup. Idempotent.

        Also ends what is half started or has lost its conmon (code 137). None for a start that
        never was. Raises WrongState while the container runs as it should.
        """
        attempt = self._attempt(id, generation)
        if not attempt.begun:
            return None
        if attempt.finished:
            return attempt.exit()
        if self._observe(id, generation, attempt).running:
            raise WrongState(f"container {id} is running", hint="stop it first", id=id)
        self._remains.end(attempt)
        directory = ContainerDir(self._config, id)
        ended = attempt.exit() or Exit(LOST_CODE, datetime.now(UTC), lost=True)
        ended = self._with_oom(directory, ended)
        self._remains.clear(directory)
        attempt.write_finished(ended)
        return ended

    def remove(self, id: str) -> None:
        """Its writable layer, log and volumes go. Idempotent. Raises WrongState while it runs."""
        directory = ContainerDir(self._config, id)
        attempts = directory.attempts()
        for generation in attempts:
            self.finish(id, generation)
        self._snapshots.unmount(directory.rootfs)
        self._snapshots.remove(directory.snapshot)
        for folder in attempts.values():
            shutil.rmtree(folder, ignore_errors=True)
        directory.remove_execs()
        if directory.path.is_dir():
            for entry in directory.path.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name not in ("lock", directory.settings.name):
                    entry.unlink()
            # Last: as long as anything is left, `list_on_disk` has it, for its row may be gone.
            directory.settings.unlink(missing_ok=True)

    def observe(self, id: str) -> Observed:
        """The newest start as disk and processes show it. Raises NotFound."""
        self.settings(id)
        attempts = ContainerDir(self._config, id).attempts()
        if not attempts:
            return Observed(id, "created")
        generation = max(attempts)
        return self._observe(id, generation, Attempt(attempts[generation], id))

    def list_on_disk(self) -> list[str]:
        """Ids of all containers, in no order."""
        if not self._config.containers_dir.is_dir():
            return []
        return [path.parent.name for path in self._config.containers_dir.glob("*/settings.json")]

    def rotate_logs(self, limits: Limits = DEFAULT_LIMITS) -> int:
        """A new part for every log that is full; how many. `limits` are of those without own."""
        return self._rotation.rotate(self.list_on_disk(), limits)

    def _thaw(self, id: str) -> None:
        """A paused container goes on to meet its end (moby daemon/kill.go)."""
        cgroup = self._runtime.cgroup(id)
        if freezer.is_frozen(cgroup):
            freezer.thaw(cgroup)

    def _attempt(self, id: str, generation: int) -> Attempt:
        return Attempt(ContainerDir(self._config, id).exits(generation), id)

    def _observe(self, id: str, generation: int, attempt: Attempt) -> Observed:
        started = attempt.started()
        ended = attempt.exit()
        status: Status
        if attempt.finished:
            status = "finished"
        elif ended is not None:
            status = "ended"
        elif started is None or self._runtime.waits(id):
            status = "starting"
        else:
            supervisor, _ = attempt.processes()
            alive = supervisor is not None and supervisor.alive()
            # It may have left between the two looks, exit file first.
            ended = None if alive else attempt.exit()
            status = "running" if alive else "ended" if ended else "lost"
        return Observed(id, status, generation, started, ended)
