"""runc or crun as a command: a thin wrapper; the caller owns the rules of states.

Holds one runtime root and one parent cgroup a home. What the runtime leaves behind when it is
killed in the middle (cgroups, its state folder, half-born processes) is cleaned by `purge`.
RUN steps are in steps.py, containers with a supervisor in conmon.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import EngineError, InvalidInput, RuntimeFailed
from engine.runtime import cgroups, freezer
from engine.runtime.processes import wait
from engine.runtime.sealed import sealed

# Nothing of our own environment reaches a runtime or a conmon.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC"}

# A created container's init is at its fifo already, or about to be.
_FIFO_SECONDS = 2.0

Status = Literal["creating", "created", "running", "paused", "stopped"]


@dataclass(frozen=True, slots=True)
class State:
    """OCI runtime-spec runtime.md, State; `pid` is 0 once stopped."""

    id: str
    status: Status
    pid: int
    bundle: Path


def find_binary() -> Path:
    """crun where cgroups are pure v2, else runc (Debian's crun refuses hybrid). RuntimeFailed."""
    names = ("crun", "runc") if cgroups.hierarchies().pure_v2 else ("runc",)
    for name in names:
        found = shutil.which(name, path=ENVIRONMENT["PATH"])
        if found is not None:
            return Path(found)
    raise RuntimeFailed(f"no OCI runtime found: {' or '.join(names)}", hint="install runc")


class OCIRuntime:
    """`root`: the runtime's state folder; `cgroup_parent`: one name below each hierarchy's top."""

    def __init__(self, root: Path, cgroup_parent: str, binary: Path | None = None) -> None:
        self.root = root
        self.binary = binary or find_binary()
        self.cgroup_parent = cgroup_parent

    def cgroup(self, id: str) -> str:
        """The path of the container's or step's own cgroup."""
        return f"/{self.cgroup_parent}/{id}"

    def program(self) -> Path:
        """What to execute for `create` and `exec`, as long as this process lives."""
        return sealed(self.binary) if self.binary.name == "runc" else self.binary

    def arguments(self) -> list[str]:
        """What goes before each command of the runtime."""
        return ["--root", str(self.root)]

    def start(self, id: str) -> None:
        """Let a created container run its command. Raises RuntimeFailed with the runtime's word.

        runc's init waits at a fifo until somebody opens it (libcontainer, Container.exec), which
        takes a tenth of a millisecond; `runc start` does just that, in ten."""
        if self.binary.name != "runc" or not self._let_go(id):
            self._call("start", id)

    def _let_go(self, id: str) -> bool:
        """False where the runtime itself should find words for it: not created, or ended."""
        fifo = self.root / id / "exec.fifo"
        try:
            descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # init opens it for writing and writes a byte; without an init nobody ever will.
            if not wait(descriptor, _FIFO_SECONDS) or not os.read(descriptor, 1):
                return False
        finally:
            os.close(descriptor)
        fifo.unlink(missing_ok=True)
        return True

    def kill(self, id: str, number: int) -> None:
        """A signal for the container's first process. Raises RuntimeFailed."""
        self._call("kill", id, str(number))

    def update(self, id: str, resources: Path) -> None:
        """New limits for a running container, from a file (config-linux.md `resources`); what is
        not in it stays. Raises RuntimeFailed."""
        done = self._run("update", "--resources", str(resources), id)
        if done.returncode != 0:
            raise RuntimeFailed(error_text(done.stderr, self.binary.name), id=id)

    def state(self, id: str) -> State | None:
        """None when the runtime knows no such container (or only a half-made one)."""
        done = self._run("state", id)
        if done.returncode != 0:
            return None
        try:
            found = json.loads(done.stdout)
            return State(found["id"], found["status"], found.get("pid", 0), Path(found["bundle"]))
        except (ValueError, KeyError) as error:
            raise RuntimeFailed(f"{self.binary.name} gave no state of {id}", id=id) from error

    def waits(self, id: str) -> bool:
        """Whether the container is created and nobody has started it. Asks no runtime."""
        return (self.root / id / "exec.fifo").exists()

    def list(self) -> frozenset[str]:
        """Ids that have state on disk, also half-made ones."""
        if not self.root.is_dir():
            return frozenset()
        return frozenset(entry.name for entry in self.root.iterdir() if entry.is_dir())

    def delete(self, id: str) -> None:
        """Forget a container that has ended, its cgroup too. Idempotent.

        What the runtime does not manage by itself (or no longer knows) `purge` does.
        """
        if (self.root / id / "state.json").exists():
            self._run("delete", id)
        if (self.root / id).exists() or cgroups.exists(self.cgroup(id)):
            self.purge(id)

    def purge(self, id: str, timeout: float = 10.0) -> None:
        """Kill everything in the container's cgroup and remove what is left of it. Idempotent.

        Asks no runtime: works on what a runtime killed in the middle of `create` leaves too.
        Raises EngineError when a process does not die within `timeout` seconds.
        """
        path = self.cgroup(id)
        cgroups.kill(path)
        if not cgroups.wait_empty(path, 0):
            freezer.thaw(path)  # v1: what is frozen does not even die
        if not cgroups.wait_empty(path, timeout):
            raise EngineError(f"processes of {id} do not die", id=id)
        cgroups.remove_tree(path)
        shutil.rmtree(self.root / id, ignore_errors=True)

    def _call(self, *words: str) -> None:
        done = self._run(*words)
        if done.returncode != 0:
            raise RuntimeFailed(error_text(done.stderr, self.binary.name), id=words[1])

    def _run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                [self.binary, *self.arguments(), *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=ENVIRONMENT,
                check=False,
            )
        except OSError as error:
            raise RuntimeFailed(
                f"cannot run {self.binary}: {error}", hint="install runc"
            ) from error


def error_text(output: bytes, name: str) -> str:
    """The last line of a runtime's words, without the logger's dress."""
    lines = output.decode("utf-8", "replace").strip().splitlines()
    text = lines[-1] if lines else "failed and did not say why"
    _, found, message = text.partition('msg="')
    if found:
        text = message.removesuffix('"').replace('\\"', '"')
    return f"{name}: {text}"


def command_error(error: RuntimeFailed, args: Sequence[str], id: str) -> InvalidInput | None:
    """What a person can mend when the command could not be run; None for any other failure."""
    code = exit_code_of(error.message)
    if code is None:
        return None
    command = args[0]
    if code == 127:
        text, hint = f"no such command in the image: {command}", "look for a slip, or install it"
    else:
        text = f"the command cannot be executed: {command}"
        hint = "look at its mode and its first line"
    return InvalidInput(text, hint=hint, field="command", id=id, code=code, command=command)


def exit_code_of(message: str) -> int | None:
    """127 or 126 when `message` says that the command itself could not be run, as a shell would.

    None when the runtime failed for another reason.
    """
    text = message.lower()
    if "executable file not found" in text:
        return 127
    if "exec" not in text:
        return None
    if "no such file or directory" in text:
        return 127
    if any(word in text for word in ("permission denied", "exec format error", "is a directory")):
        return 126
    return None
