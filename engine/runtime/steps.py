"""RUN steps: one command in a root file system, its output as it comes, its exit code back.

No conmon: the step belongs to the call and ends with it. A step whose caller was killed lives on
in its own cgroup until `reap_steps`, which knows the dead ones by a lock nobody holds.
Leaves what the step leaves on disk to the builder, mount points excepted (stubs.py).
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine.errors import Cancelled, Conflict, RuntimeFailed
from engine.runtime import cgroups, processes
from engine.runtime.oci_runtime import ENVIRONMENT, OCIRuntime, exit_code_of
from engine.runtime.resources import Limits
from engine.runtime.spec import ContainerSpec, Mount, ProcessSpec, build_spec, shm_mount
from engine.runtime.stubs import Stubs

Stream = Literal["stdout", "stderr"]
_PREFIX = "step-"
_CHUNK = 65536
_DEATH_SECONDS = 10.0


class Cancellation:
    """Asked for in one thread, seen by every step that was given it, in others. Never undone."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __del__(self) -> None:
        os.close(self._event)

    def cancel(self) -> None:
        os.eventfd_write(self._event, 1)

    @property
    def cancelled(self) -> bool:
        poller = select.poll()
        poller.register(self._event, select.POLLIN)
        return bool(poller.poll(0))

    def fileno(self) -> int:
        """Readable from the moment of `cancel` on."""
        return self._event


@dataclass(frozen=True, slots=True)
class Step:
    """`id` is unique in the home, of letters, digits, `-` and `_`; `rootfs` is mounted and ours.

    `network` is the file of the network namespace it runs in; without, it has one of its own with
    nothing but a loopback.
    """

    id: str
    rootfs: Path
    process: ProcessSpec
    hostname: str = "build"
    mounts: tuple[Mount, ...] = ()
    limits: Limits = field(default_factory=Limits)
    shm: Mount = field(default_factory=shm_mount)
    network: str = ""


def run_step(
    runtime: OCIRuntime,
    step: Step,
    output: Callable[[Stream, bytes], None],
    *,
    cancel: Cancellation | None = None,
) -> int:
    """Run the step to its end; the exit code (128 + n for a signal, 126/127 as a shell has them).

    `output` gets the bytes as they come, in this thread; while it blocks, so does the step.
    stdin is /dev/null. Whatever happens, no process, cgroup, mount point or state is left.
    Raises Cancelled, RuntimeFailed, Conflict (a step with this id runs), and what `output` raises
    (after killing the step).
    """
    if cancel is not None and cancel.cancelled:
        raise Cancelled(f"step {step.id} was cancelled before it began", id=step.id)
    cgroups.expect_moves()
    name = _PREFIX + step.id
    bundle = _folder(runtime) / name
    lock = _claim(bundle)
    if lock is None:
        raise Conflict(f"step {step.id} is running already", id=step.id)
    stubs = Stubs(step.rootfs)
    try:
        _bury(runtime, bundle)
        stubs.create(_targets(step))
        return _Run(runtime, step, name, bundle, output, cancel).run()
    finally:
        runtime.purge(name)
        stubs.remove()
        shutil.rmtree(bundle, ignore_errors=True)
        os.close(lock)


def reap_steps(runtime: OCIRuntime) -> list[str]:
    """End and remove every step whose caller is gone; their ids. For reconcile. Idempotent."""
    reaped: list[str] = []
    folder = _folder(runtime)
    if not folder.is_dir():
        return reaped
    for bundle in sorted(folder.iterdir()):
        try:
            lock = _lock(bundle)
        except FileNotFoundError:
            continue
        if lock is not None:
            _bury(runtime, bundle)
            shutil.rmtree(bundle, ignore_errors=True)
            os.close(lock)
            reaped.append(bundle.name.removeprefix(_PREFIX))
    return reaped


def _bury(runtime: OCIRuntime, bundle: Path) -> None:
    """Take away what a killed caller left: its runtime first, which may still be creating."""
    if (bundle / "config.json").exists():
        processes.end_all(str(bundle), _DEATH_SECONDS)
    runtime.purge(bundle.name)


class _Run:
    """One run of one step: the runtime's process, its two pipes and the cancel."""

    def __init__(
        self,
        runtime: OCIRuntime,
        step: Step,
        name: str,
        bundle: Path,
        output: Callable[[Stream, bytes], None],
        cancel: Cancellation | None,
    ) -> None:
        self.runtime, self.step, self.name, self.bundle = runtime, step, name, bundle
        self.output, self.cancel = output, cancel
        self.log = bundle / "runtime.log"

    def run(self) -> int:
        try:
            self._write_config()
            with subprocess.Popen(
                [
                    *(str(self.runtime.program()), *self.runtime.arguments()),
                    *("--log", str(self.log), "--log-format", "json"),
                    *("run", "--bundle", str(self.bundle), self.name),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                bufsize=0,
            ) as process:
                try:
                    self._pump(process)
                except BaseException:
                    # The runtime first: it must not go on making what the purge takes away.
                    process.kill()
                    self.runtime.purge(self.name)
                    raise
                code = process.wait()
        except OSError as error:
            raise RuntimeFailed(f"cannot run step {self.step.id}: {error}") from error
        return self._outcome(code)

    def _write_config(self) -> None:
        spec = build_spec(
            ContainerSpec(
                process=self.step.process,
                rootfs=self.step.rootfs,
                cgroup=self.runtime.cgroup(self.name),
                hostname=self.step.hostname,
                mounts=self.step.mounts,
                limits=self.step.limits,
                shm=self.step.shm,
                joined={"network": self.step.network} if self.step.network else {},
            )
        )
        (self.bundle / "config.json").write_text(json.dumps(spec))

    def _pump(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None and process.stderr is not None
        names: dict[int, Stream] = {
            process.stdout.fileno(): "stdout",
            process.stderr.fileno(): "stderr",
        }
        poller = select.poll()
        for number in (*names, *((self.cancel.fileno(),) if self.cancel else ())):
            poller.register(number, select.POLLIN)
        while names:
            for number, _ in poller.poll():
                if number in names:
                    data = os.read(number, _CHUNK)
                    if data:
                        self.output(names[number], data)
                    else:
                        poller.unregister(number)
                        del names[number]
                else:
                    raise Cancelled(f"step {self.step.id} was cancelled", id=self.step.id)

    def _outcome(self, code: int) -> int:
        if code == 0:
            return 0
        message = _last_error(self.log)
        if not message:
            return code if code > 0 else 128 - code
        command = exit_code_of(message)
        if command is None:
            raise RuntimeFailed(f"{self.runtime.binary.name}: {message}", id=self.step.id)
        return command


def _last_error(log: Path) -> str:
    """The runtime's own last error; empty when the exit code is the command's."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    for line in reversed(lines):
        with suppress(ValueError):
            entry = json.loads(line)
            if entry.get("level") == "error":
                return str(entry.get("msg", ""))
    return ""


def _targets(step: Step) -> list[tuple[str, bool]]:
    """Mount points in the root itself; what lies in /dev, /proc and /sys is not on disk."""
    found = [(path, True) for path in ("/proc", "/dev", "/sys")]
    for mount in step.mounts:
        if not mount.destination.startswith(("/proc/", "/dev/", "/sys/")):
            folder = mount.type != "bind" or Path(mount.source).is_dir()
            found.append((mount.destination, folder))
    return found


def _folder(runtime: OCIRuntime) -> Path:
    return runtime.root.parent / "steps"


def _claim(bundle: Path) -> int | None:
    """Make the folder and hold its lock; a reaper may take it away in between."""
    while True:
        bundle.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):
            lock = _lock(bundle)
            if lock is None or _current(bundle, lock):
                return lock
            os.close(lock)


def _current(bundle: Path, lock: int) -> bool:
    """Whether the lock we hold is still the one others would find."""
    return (bundle / "lock").stat().st_ino == os.fstat(lock).st_ino


def _lock(bundle: Path) -> int | None:
    """Hold the step's lock, which dies with us; None when somebody else holds it."""
    descriptor = os.open(bundle / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
