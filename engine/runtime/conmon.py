"""conmon: one small process a container that holds its pty or pipes, its log and its exit code.

A container so outlives every restart of ours. What it takes and gives:
the sync pipe answers one JSON line, BUNDLE/ctl takes resizes and the reopening of the log,
BUNDLE/attach takes clients, EXIT_DIR/ID gets the exit code. Leaves states, generations and
clean-up to engine.containers.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import RuntimeFailed, WrongState
from engine.runtime import cgroups
from engine.runtime.oci_runtime import ENVIRONMENT, OCIRuntime
from engine.runtime.processes import wait

# conmon refuses larger ones, and logs a warning for each.
MAX_SIZE = 1000
# Creating takes 30 ms; on a machine that swaps it may take a thousand times that.
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Created:
    conmon_pid: int
    init_pid: int


@dataclass(frozen=True, slots=True)
class Supervised:
    """What conmon is told. `bundle` gets attach, ctl and winsz; `exit_dir` is of this attempt
    alone: an exec that shared its container's would end it in everybody's eyes."""

    id: str
    bundle: Path
    exit_dir: Path
    log: Path
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False


def find_binary() -> Path:
    """conmon on this machine; RuntimeFailed when there is none."""
    found = shutil.which("conmon", path=ENVIRONMENT["PATH"])
    if found is None:
        raise RuntimeFailed("conmon is missing", hint="install conmon")
    return Path(found)


class Conmon:
    """Starts conmons for one runtime; its cgroup is `PARENT/conmon`, in every hierarchy."""

    def __init__(self, runtime: OCIRuntime, binary: Path | None = None) -> None:
        self._runtime = runtime
        self._binary = binary or find_binary()
        self._cgroup = runtime.cgroup("conmon")

    def create(self, what: Supervised, keep: Sequence[int] = ()) -> Created:
        """`runtime create` under a new conmon; the container waits for OCIRuntime.start.

        Descriptors in `keep` (listening sockets of published ports) stay open as long as conmon
        lives. Raises RuntimeFailed with the runtime's own words; what was half made is then the
        caller's to purge.
        """
        with _Launch(self, what, keep) as launch:
            launch.go()
            answer = launch.answer()
            return Created(launch.conmon_pid(), answer)

    def exec(self, what: Supervised, process: Path) -> Created:
        """Run `process` (a process.json) inside the running container `what.id`.

        `what.bundle` is a folder of the exec's own. No client need be attached for its first
        output: the log has it. Raises RuntimeFailed.
        """
        with _Launch(self, what, (), process) as launch:
            launch.go()
            answer = launch.answer()
            return Created(launch.conmon_pid(), answer)


class _Launch:
    """conmon's start: it waits, joins its cgroup, goes on at our byte and answers with a pid."""

    def __init__(
        self, conmon: Conmon, what: Supervised, keep: Sequence[int], process: Path | None = None
    ) -> None:
        self._conmon, self._what, self._keep, self._process = conmon, what, keep, process
        self._ours: list[int] = []

    def __enter__(self) -> _Launch:
        self._sync, sync_out = os.pipe()
        ours, start_in = (one.detach() for one in socket.socketpair())
        # Never read: a socket closed over unread bytes resets its peer. Should we be killed
        # before our byte, conmon so gets an error instead of an end, which it would take for go.
        os.write(start_in, b"x")
        self._start = ours
        theirs = (sync_out, start_in)
        self._ours = [self._sync, self._start]
        try:
            self._popen = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd=self._what.bundle,
                env={
                    **ENVIRONMENT,
                    "_OCI_SYNCPIPE": str(sync_out),
                    "_OCI_STARTPIPE": str(start_in),
                },
                pass_fds=(*theirs, *self._keep),
            )
        except OSError as error:
            self._close()
            raise RuntimeFailed(f"cannot run {self._conmon._binary}: {error}") from error
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        try:
            # It waits for the first byte before it forks: nothing of it escapes this group.
            self._join()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        # Its foreground half ends by itself; a conmon that failed early has ended altogether.
        self._popen.wait()
        if self._popen.stderr is not None:
            self._popen.stderr.close()

    def go(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has failed: `answer` says why
            os.write(self._start, b"x")

    def answer(self) -> int:
        """The pid conmon reports. Raises RuntimeFailed."""
        line = self._line()
        try:
            answer: dict[str, Any] = json.loads(line, strict=False)
            pid = int(answer["data"])
        except (ValueError, KeyError, TypeError):
            raise RuntimeFailed(
                f"conmon ended before {self._what.id} was made: {self._complaint()}",
                id=self._what.id,
            ) from None
        if pid <= 0:
            raise RuntimeFailed(
                _message(str(answer.get("message", "")), self._conmon._runtime.binary.name),
                id=self._what.id,
            )
        return pid

    def conmon_pid(self) -> int:
        """Its foreground half writes the file and ends."""
        self._popen.wait()
        return int(pid_file(self._what.exit_dir).read_text())

    def _command(self) -> list[str]:
        what, runtime = self._what, self._conmon._runtime
        command = [
            str(self._conmon._binary),
            *("--api-version", "1", "-c", what.id, "-u", what.id, "-n", what.id),
            *("-r", str(runtime.program()), "-b", str(what.bundle)),
            *("-p", str(what.exit_dir / "init.pid"), "-P", str(pid_file(what.exit_dir))),
            *("--exit-dir", str(what.exit_dir), "--full-attach", "--log-level", "error"),
            # Docker does not sync a container's log either; a sync at its end costs 10 ms.
            *("-l", f"k8s-file:{what.log}", "--no-sync-log"),
        ]
        for argument in runtime.arguments():
            command += ["--runtime-arg", argument]
        if what.tty:
            command.append("-t")
        if what.stdin:
            command.append("-i")
            # conmon closes stdin when *a* client leaves: right for StdinOnce alone, and on a
            # terminal not even then: Docker lets a client come back to that.
            if not what.stdin_once or what.tty:
                command.append("--leave-stdin-open")
        if self._process is not None:
            command += ["-e", "--exec-process-spec", str(self._process)]
        return command

    def _join(self) -> None:
        try:
            cgroups.add(self._conmon._cgroup, self._popen.pid)
        except OSError as error:
            # ENOSPC: another start is making it just now, and a v1 cpuset is born empty.
            if error.errno not in (errno.ENOENT, errno.ENOSPC):
                raise
            cgroups.create(self._conmon._cgroup)
            cgroups.add(self._conmon._cgroup, self._popen.pid)

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            if not wait(self._sync, _TIMEOUT):
                raise RuntimeFailed(f"conmon does not answer for {self._what.id}")
            data = os.read(self._sync, 65536)
            if not data:
                break
            line += data
        return line.split(b"\n", 1)[0]

    def _complaint(self) -> str:
        assert self._popen.stderr is not None
        self._popen.wait()
        os.set_blocking(self._popen.stderr.fileno(), False)
        text = (self._popen.stderr.read() or b"").decode("utf-8", "replace").strip()
        return text.splitlines()[-1] if text else "it did not say why"

    def _close(self) -> None:
        for descriptor in self._ours:
            os.close(descriptor)
        self._ours = []


def pid_file(exit_dir: Path) -> Path:
    """Where conmon's own pid lies, for an attempt whose starter was killed."""
    return exit_dir / "conmon.pid"


def resize(bundle: Path, columns: int, rows: int) -> None:
    """Set the terminal's size. Raises WrongState when no conmon reads."""
    _control(bundle, f"1 {min(rows, MAX_SIZE)} {min(columns, MAX_SIZE)}\n")


def reopen_log(bundle: Path) -> None:
    """Let conmon go on in a new file of the log's name. Raises WrongState when it has ended."""
    _control(bundle, "2 0 0\n")


def _control(bundle: Path, line: str) -> None:
    try:
        # O_NONBLOCK: without a reader a plain open would wait for one for ever.
        descriptor = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise WrongState(f"nothing runs in {bundle.parent.name}", path=str(bundle)) from error
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _message(text: str, name: str) -> str:
    """The runtime's last line of JSON log or plain text, as a sentence."""
    lines = text.strip().splitlines() or ["failed and did not say why"]
    last = lines[-1]
    with suppress(ValueError):
        entry = json.loads(last)
        if isinstance(entry, dict):
            last = str(entry.get("msg", last))
    _, found, message = last.partition('msg="')
    if found:
        last = message.removesuffix('"').replace('\\"', '"')
    return f"{name}: {last}"
