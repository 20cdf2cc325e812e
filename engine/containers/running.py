"""What is done to a container while it runs, besides signals, and what is asked of it: pausing,
going on, new limits, what it uses, its processes."""

from __future__ import annotations

from engine.config import EngineConfig
from engine.containers.attempts import Attempt
from engine.containers.layout import ContainerDir, write_json
from engine.containers.settings import ContainerSettings
from engine.containers.stats import Sample, sample
from engine.containers.top import DEFAULT_ARGUMENTS, Top, top
from engine.errors import WrongState
from engine.runtime import cgroups, freezer
from engine.runtime.oci_runtime import OCIRuntime
from engine.runtime.processes import ProcessRef
from engine.runtime.resources import Limits, changes, fitting


class Running:
    """Like engine.containers.lifecycle: told by id and generation, the caller holds the lock."""

    def __init__(self, config: EngineConfig, runtime: OCIRuntime) -> None:
        self._config = config
        self._runtime = runtime

    def pause(self, id: str, generation: int) -> None:
        """All its processes stand when this returns, execs' too. Idempotent. Raises WrongState,
        EngineError."""
        self._must_run(id, generation)
        freezer.freeze(self._runtime.cgroup(id))

    def unpause(self, id: str, generation: int) -> None:
        """Idempotent. Raises WrongState, EngineError."""
        self._must_run(id, generation)
        freezer.thaw(self._runtime.cgroup(id))

    def is_paused(self, id: str) -> bool:
        return freezer.is_frozen(self._runtime.cgroup(id))

    def update(self, settings: ContainerSettings, before: Limits, generation: int | None) -> None:
        """Settings with new limits: the kernel's first where it runs (`generation`), then the file.

        `before` are those it has now. Raises WrongState, RuntimeFailed with the runtime's words.
        """
        directory = ContainerDir(self._config, settings.id)
        after = settings.host.limits
        if generation is not None and after != before:
            self._must_run(settings.id, generation)
            resources = changes(fitting(before)[0], fitting(after)[0])
            file = directory.bundle / "resources.json"
            write_json(file, resources)
            self._runtime.update(settings.id, file)
        if directory.settings.exists():
            write_json(directory.settings, settings.to_json())

    def sample(self, id: str, generation: int) -> Sample:
        """What it uses now. Raises WrongState. On the host's network, no networks."""
        settings = ContainerSettings.from_json(ContainerDir(self._config, id).settings.read_bytes())
        init = self._must_run(id, generation)
        shared = settings.network_mode == "host"
        return sample(self._runtime.cgroup(id), None if shared else init.pid)

    def top(self, id: str, generation: int, arguments: str = DEFAULT_ARGUMENTS) -> Top:
        """Its processes, execs' too. Raises WrongState, InvalidInput, RuntimeFailed."""
        self._must_run(id, generation)
        return top(cgroups.pids(self._runtime.cgroup(id)), arguments)

    def _must_run(self, id: str, generation: int) -> ProcessRef:
        attempt = Attempt(ContainerDir(self._config, id).exits(generation), id)
        init = attempt.processes()[1]
        if init is None or not init.alive():
            raise WrongState(f"container {id} is not running", id=id)
        return init
