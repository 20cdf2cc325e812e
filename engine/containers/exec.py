"""A further process in a running container, under a conmon of its own.

It has its own folder, log, attach socket and exit folder: an exec's end is never its
container's. It ends with the container at the latest. Who may exec, and what becomes of the
sessions, is left to services and streams.
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal as signals
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engine.ceiling import Ceiling
from engine.config import EngineConfig
from engine.containers.attempts import LOST_CODE, Attempt, Exit
from engine.containers.config import process_spec
from engine.containers.layout import ContainerDir
from engine.containers.remains import DEATH_SECONDS, outlast
from engine.containers.settings import ContainerSettings
from engine.errors import NotFound, RuntimeFailed, WrongState
from engine.runtime import conmon, freezer
from engine.runtime.conmon import Conmon, Supervised
from engine.runtime.oci_runtime import OCIRuntime, command_error
from engine.runtime.processes import ProcessRef
from engine.runtime.spec import build_process
from engine.runtime.users import resolve_user


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """As `docker exec`: empty texts mean the container's own. `env` is added to the container's.

    `size` is (columns, rows) of a tty. `stdin` keeps the input open for attached clients; with
    `stdin_once` it ends when one of them leaves. `privileged` gives it every capability we hold.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    size: tuple[int, int] | None = None
    privileged: bool = False


@dataclass(frozen=True, slots=True)
class Exec:
    """One exec: `id` is 32 hex digits. `folder` has attach and ctl, `log` is for LogReader."""

    id: str
    container_id: str
    folder: Path
    exits: Path

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def attempt(self) -> Attempt:
        # conmon writes an exec's exit under its container's id.
        return Attempt(self.exits, self.container_id)

    def exit(self) -> Exit | None:
        """None while it runs. An exec whose conmon was lost ends with code 137."""
        ended = self.attempt.exit()
        if ended is not None:
            return ended
        supervisor, _ = self.attempt.processes()
        if supervisor is not None and supervisor.alive():
            return None
        # conmon leaves its word before it leaves.
        return self.attempt.exit() or Exit(LOST_CODE, datetime.now(UTC), lost=True)

    def supervisor(self) -> ProcessRef | None:
        """Its conmon, whose end is the exec's: wait on a pidfd of it, or watch `exits`."""
        return self.attempt.processes()[0]

    def signal(self, number: int) -> bool:
        """A signal for its process; False when it has ended."""
        init = self.attempt.processes()[1]
        return init is not None and init.send(number)

    def resize(self, columns: int, rows: int) -> None:
        """Raises WrongState when it has ended."""
        conmon.resize(self.folder, columns, rows)


class Execs:
    """Execs of all containers of one home."""

    def __init__(self, config: EngineConfig, runtime: OCIRuntime) -> None:
        self._config = config
        self._runtime = runtime
        self._conmon = Conmon(runtime)

    def start(self, id: str, request: ExecRequest, exec_id: str = "") -> Exec:
        """Start it in the running container; it runs when this returns, attached or not.

        Nobody need be attached for its first output: the log has every byte. Raises NotFound,
        WrongState (the container does not run), InvalidInput (no such user or program; `code`
        126 or 127 in its context), RuntimeFailed.
        """
        directory = ContainerDir(self._config, id)
        if request.privileged:
            Ceiling.load(self._config.home / "ceiling.json").check_privileged()
        try:
            settings = ContainerSettings.from_json(directory.settings.read_bytes())
        except FileNotFoundError as error:
            raise NotFound(f"no such container: {id}", kind="container", id=id) from error
        init = _init(directory)
        if init is None or not init.alive():
            raise WrongState(f"container {id} is not running", hint="start it first", id=id)
        if freezer.is_frozen(self._runtime.cgroup(id)):
            raise WrongState(
                f"Container {id} is paused, unpause the container before exec",
                hint="unpause it first",
                id=id,
            )
        made = self.find(id, exec_id or secrets.token_hex(16))
        made.log.mkdir(parents=True, mode=0o755)
        made.attempt.begin()
        try:
            return self._start(settings, init, request, made)
        except BaseException as error:
            self.end(made)
            shutil.rmtree(made.folder, ignore_errors=True)
            shutil.rmtree(made.exits, ignore_errors=True)
            if isinstance(error, RuntimeFailed):
                if not init.alive():
                    raise WrongState(f"container {id} has ended", id=id) from error
                raise command_error(error, request.args, id) or error from error
            raise

    def find(self, id: str, exec_id: str) -> Exec:
        """The exec by its id, as it lies on disk; says nothing of whether it is there."""
        directory = ContainerDir(self._config, id)
        return Exec(exec_id, id, directory.exec(exec_id), directory.exec_exits(exec_id))

    def list(self, id: str) -> list[Exec]:
        """All execs of the container that were not removed yet."""
        folder = ContainerDir(self._config, id).exec("x").parent
        if not folder.is_dir():
            return []
        return [self.find(id, entry.name) for entry in sorted(folder.iterdir())]

    def end(self, which: Exec) -> None:
        """Kill it if it runs, its conmon too when that does not leave. Idempotent."""
        supervisor, init = which.attempt.processes()
        if init is not None and init.send(signals.SIGKILL):
            init.wait(DEATH_SECONDS)
        if which.attempt.started() is None:
            which.attempt.end_strays(DEATH_SECONDS)
        elif supervisor is not None:
            outlast(supervisor)

    def remove(self, which: Exec) -> None:
        """End it and forget it, its log too. Idempotent."""
        self.end(which)
        shutil.rmtree(which.exits, ignore_errors=True)
        shutil.rmtree(which.folder, ignore_errors=True)

    def _start(
        self, settings: ContainerSettings, init: ProcessRef, request: ExecRequest, made: Exec
    ) -> Exec:
        # The container's root as it is now, through its own first process.
        user = resolve_user(
            request.user or settings.user,
            Path(f"/proc/{init.pid}/root"),
            settings.host.group_add,
        )
        process = process_spec(
            settings,
            user,
            request.args,
            env=request.env,
            cwd=request.working_dir,
            tty=request.tty,
            size=request.size,
            privileged=request.privileged,
        )
        file = made.folder / "process.json"
        file.write_text(json.dumps(build_process(process)))
        created = self._conmon.exec(
            Supervised(
                id=settings.id,
                bundle=made.folder,
                exit_dir=made.exits,
                log=made.log / "current",
                tty=request.tty,
                stdin=request.stdin,
                stdin_once=request.stdin_once,
            ),
            file,
        )
        made.attempt.write_started(created)
        return made


def _init(directory: ContainerDir) -> ProcessRef | None:
    for folder in reversed(directory.attempts().values()):
        return Attempt(folder, directory.id).processes()[1]
    return None
