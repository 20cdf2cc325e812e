"""One start of a container as its exit folder shows it: begun, started, ended, cleaned up.

The folder is made before anything else and read after any crash. Files in it, in their order:
conmon.pid and init.pid (by conmon), started.json (by us), the exit code in a file of the
container's id (by conmon), finished.json (by us, after the clean-up).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from engine.containers.layout import read_json, write_json
from engine.network.spec import PublishedPort
from engine.runtime import conmon, processes
from engine.runtime.processes import ProcessRef

# What a shell would say of a process ended by SIGKILL: the code when nobody saw the real one.
LOST_CODE = 137

Status = Literal["created", "starting", "running", "ended", "lost", "finished"]


@dataclass(frozen=True, slots=True)
class Started:
    """`ports` are what was published, free ones chosen."""

    conmon_pid: int
    init_pid: int
    started_at: datetime
    ports: tuple[PublishedPort, ...] = ()


@dataclass(frozen=True, slots=True)
class Exit:
    """`lost`: conmon ended without leaving a code, so `code` is 137. `oom`: out of memory."""

    code: int
    finished_at: datetime
    lost: bool = False
    oom: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """What the machine says of a container's newest start.

    created: never started. starting: its starter was killed on the way. running. ended: conmon
    left an exit, not yet cleaned up. lost: conmon is gone and left none. finished: cleaned up.
    All but `created`, `running` and `finished` want a `finish`.
    """

    id: str
    status: Status
    generation: int = 0
    started: Started | None = None
    exit: Exit | None = None

    @property
    def running(self) -> bool:
        return self.status == "running"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A start of `id`, or with `id` of a container an exec in it: the folder is its own."""

    folder: Path
    id: str

    def begin(self) -> None:
        self.folder.mkdir(parents=True, mode=0o700)

    @property
    def begun(self) -> bool:
        return self.folder.is_dir()

    def write_started(
        self, created: conmon.Created, ports: tuple[PublishedPort, ...] = ()
    ) -> Started:
        """What has ended already is written with the start time 0, which no process has."""
        now = datetime.now(UTC)
        write_json(
            self.folder / "started.json",
            {
                "boot": processes.boot_id(),
                "conmon_pid": created.conmon_pid,
                "conmon_start": processes.start_time(created.conmon_pid) or 0,
                "init_pid": created.init_pid,
                "init_start": processes.start_time(created.init_pid) or 0,
                "started_at": now.isoformat(),
                "ports": [port.to_json() for port in ports],
            },
        )
        return Started(created.conmon_pid, created.init_pid, now, ports)

    def started(self) -> Started | None:
        values = read_json(self.folder / "started.json")
        if values is None:
            return None
        return Started(
            values["conmon_pid"],
            values["init_pid"],
            datetime.fromisoformat(values["started_at"]),
            tuple(PublishedPort.from_json(port) for port in values["ports"]),
        )

    def processes(self) -> tuple[ProcessRef | None, ProcessRef | None]:
        """(conmon, the first process), as far as they may still be alive."""
        values = read_json(self.folder / "started.json")
        if values is None or values["boot"] != processes.boot_id():
            return None, None
        return (
            ProcessRef(values["conmon_pid"], values["conmon_start"]),
            ProcessRef(values["init_pid"], values["init_start"]),
        )

    def end_strays(self, timeout: float) -> None:
        """End the conmon and the runtime of a start whose starter was killed before it knew them.

        Both have the path of init.pid among their arguments: a number in a file would be no
        proof. Raises EngineError.
        """
        processes.end_all(str(self.folder / "init.pid"), timeout)

    def exit(self) -> Exit | None:
        """None while it has not ended, or ended without a word and was not cleaned up yet."""
        if (known := self._finished()) is not None:
            return known
        file = self.folder / self.id
        try:
            code = int(file.read_text())
            when = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        except (FileNotFoundError, ValueError):
            # Its clean-up may have come between the two looks.
            return self._finished()
        started = self.started()
        if started is not None:
            # A file's time is that of the kernel's last tick, up to 10 ms behind the clock.
            when = max(when, started.started_at)
        return Exit(code, when)

    def _finished(self) -> Exit | None:
        values = read_json(self.folder / "finished.json")
        if values is None:
            return None
        return Exit(
            values["code"],
            datetime.fromisoformat(values["finished_at"]),
            values["lost"],
            values["oom"],
        )

    @property
    def finished(self) -> bool:
        return (self.folder / "finished.json").exists()

    def write_finished(self, ended: Exit) -> None:
        """All there is to know of it from now on; the other files go, for they lie in memory."""
        write_json(
            self.folder / "finished.json",
            {
                "code": ended.code,
                "finished_at": ended.finished_at.isoformat(),
                "lost": ended.lost,
                "oom": ended.oom,
            },
        )
        for file in self.folder.iterdir():
            if file.name != "finished.json":
                file.unlink(missing_ok=True)
