"""Control groups: one parent a home, one child a container, a RUN step or a group of helpers.

Works on pure v2, on v1 and on the hybrid of both: every group is the same path in each hierarchy.
Vocabulary: a *path* begins with / and counts from a hierarchy's top (`/quayside-1a2b3c4d/c-ID`);
a *tree* is a path in all hierarchies. Limits are set by the runtime from config.json.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engine.errors import EngineError

_MOUNT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Where the hierarchies are mounted. `unified` is None on a pure v1 machine."""

    unified: Path | None
    controllers: dict[str, Path]

    @property
    def all(self) -> tuple[Path, ...]:
        found = dict.fromkeys(self.controllers.values())
        if self.unified is not None:
            found[self.unified] = None
        return tuple(found)

    @property
    def pure_v2(self) -> bool:
        return self.unified is not None and not self.controllers

    def of(self, controller: str) -> Path | None:
        """The v1 hierarchy with `controller`, else the unified one."""
        return self.controllers.get(controller, self.unified)


@cache
def hierarchies() -> Hierarchies:
    """Read once from /proc/self/mountinfo."""
    unified: Path | None = None
    controllers: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        kind, _, options = tail.split(" ", 2)
        where = Path(fields.split(" ")[4])
        if not where.is_relative_to(_MOUNT):
            continue
        if kind == "cgroup2":
            unified = where
        elif kind == "cgroup":
            for option in options.split(","):
                if option.startswith("name=") or option in _V1_CONTROLLERS:
                    controllers[option] = where
    return Hierarchies(unified, controllers)


_V1_CONTROLLERS = frozenset(
    {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "net_cls"}
    | {"net_prio", "hugetlb", "perf_event", "rdma", "misc"}
)


def create(path: str) -> None:
    """Make the group in every hierarchy, ready to take processes. Idempotent."""
    cpuset = hierarchies().controllers.get("cpuset")
    for top in hierarchies().all:
        group = top
        for name in _names(path):
            parent, group = group, group / name
            with suppress(FileExistsError):
                group.mkdir()
            if top == cpuset:
                _inherit_cpuset(parent, group)


def add(path: str, pid: int) -> None:
    """Move a process into the group in every hierarchy; a process already gone is no error."""
    for top in hierarchies().all:
        try:
            _write(_join(top, path) / "cgroup.procs", str(pid))
        except ProcessLookupError:
            return


def expect_moves() -> None:
    """A process is about to be moved into a group: begin the kernel's wait for it now, beside
    whatever comes first. Returns at once.

    The first of several moves waits for every processor, some 10 ms; those soon after it do not
    (kernel/cgroup, cgroup_threadgroup_rwsem). So this moves ourselves to where we are."""
    threading.Thread(target=_move_nowhere, name="cgroup-move", daemon=True).start()


def _move_nowhere() -> None:
    found = hierarchies()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, group = line.split(":", 2)
        top = found.of(names.split(",")[0]) if names else found.unified
        if top is not None:
            with suppress(OSError):  # it was only to save time
                _write(_join(top, group) / "cgroup.procs", str(os.getpid()))
            return


def pids(path: str) -> frozenset[int]:
    """Processes in the group or below it, in any hierarchy; none when there is no such group."""
    found: set[int] = set()
    for top in hierarchies().all:
        for group in _tree(_join(top, path)):
            with suppress(OSError):  # removed under us
                found.update(int(line) for line in (group / "cgroup.procs").read_text().split())
    found.discard(0)  # a process of another pid namespace
    return frozenset(found)


def exists(path: str) -> bool:
    return any(_join(top, path).is_dir() for top in hierarchies().all)


def children(path: str) -> frozenset[str]:
    """Names of the groups directly below, in any hierarchy."""
    found: set[str] = set()
    for top in hierarchies().all:
        with suppress(FileNotFoundError):
            found.update(entry.name for entry in os.scandir(_join(top, path)) if entry.is_dir())
    return frozenset(found)


def kill(path: str) -> None:
    """SIGKILL for everything in the group and below it. Idempotent; does not wait.

    cgroup.kill does it in one stroke where v2 knows the group. What only v1 knows is killed by
    pid until no new one shows up.
    """
    unified = hierarchies().unified
    if unified is not None:
        # ENOENT: no such group; before 5.14 the file is missing, and the loop below does it.
        with suppress(FileNotFoundError, PermissionError):
            _write(_join(unified, path) / "cgroup.kill", "1")
    killed: set[int] = set()
    while new := pids(path) - killed:
        for pid in new:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= new


def wait_empty(path: str, timeout: float) -> bool:
    """Wait until nothing lives in the group any more; False when `timeout` seconds passed.

    Waits on a pidfd of each process in it: nothing is polled.
    """
    deadline = time.monotonic() + timeout
    while members := pids(path):
        for pid in members:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                left = deadline - time.monotonic()
                poller = select.poll()
                poller.register(descriptor, select.POLLIN)
                if left <= 0 or not poller.poll(left * 1000):
                    return False
            finally:
                os.close(descriptor)
    return True


def remove_tree(path: str, timeout: float = 5.0) -> None:
    """Remove the group and all below it. Idempotent. Kills nothing: see `kill`.

    Raises EngineError when a process is still in it after `timeout` seconds.
    """
    for top in hierarchies().all:
        for group in reversed(list(_tree(_join(top, path)))):
            try:
                group.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY or not wait_empty(path, timeout):
                    raise EngineError(
                        f"cannot remove the cgroup {group}: {error.strerror}", path=str(group)
                    ) from error
                with suppress(FileNotFoundError):
                    group.rmdir()


def oom_kills(path: str) -> int:
    """How many processes of the group the kernel has ended for want of memory; 0 where it is gone.

    v1 says it in memory.oom_control, v2 in memory.events."""
    found = hierarchies()
    top = found.of("memory")
    if top is None:
        return 0
    name = "memory.oom_control" if "memory" in found.controllers else "memory.events"
    with suppress(OSError):
        for line in (_join(top, path) / name).read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
    return 0


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def _join(top: Path, path: str) -> Path:
    return top.joinpath(*_names(path))


def _tree(group: Path) -> Iterator[Path]:
    """The group and all below it, parents first."""
    if not group.is_dir():
        return
    yield group
    with suppress(FileNotFoundError):
        for entry in os.scandir(group):
            if entry.is_dir(follow_symlinks=False):
                yield from _tree(Path(entry.path))


def _inherit_cpuset(parent: Path, group: Path) -> None:
    """A v1 cpuset is born empty and takes no process until both files are filled."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (group / name).read_text().strip():
            _write(group / name, (parent / name).read_text().strip())


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
