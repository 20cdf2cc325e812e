"""One reading of what a running container uses: processors, memory, processes, disks, networks.

From the cgroup's files, v1's or v2's, and from the first process's /proc/PID/net/dev, which is of
its network namespace. Docker's JSON is made of it in engine.api.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from engine.errors import WrongState
from engine.runtime.cgroups import Hierarchies, hierarchies

_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
_NETWORK = (
    *("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "", "", "", ""),
    *("tx_bytes", "tx_packets", "tx_errors", "tx_dropped", "", "", "", ""),
)


@dataclass(frozen=True, slots=True)
class Cpu:
    """Nanoseconds since the container began; `system` of the whole machine since its boot, on all
    processors together. `per_cpu` is empty on v2. `periods` of the quota, how many were too short,
    and for how long."""

    total: int
    kernel: int
    user: int
    per_cpu: tuple[int, ...]
    system: int
    online: int
    periods: int = 0
    throttled_periods: int = 0
    throttled: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `limit` is the machine's memory where there is none; `details` is memory.stat."""

    usage: int
    limit: int
    max_usage: int
    failures: int
    details: Mapping[str, int]

    @property
    def used(self) -> int:
        """As `docker stats` counts it: without the file cache that would be let go first."""
        inactive = self.details.get("total_inactive_file", self.details.get("inactive_file", 0))
        return self.usage - inactive if inactive < self.usage else self.usage


@dataclass(frozen=True, slots=True)
class BlockIO:
    """Of one device: `operation` Read, Write, Sync, Async, Discard or Total (v2: read, write)."""

    major: int
    minor: int
    operation: str
    value: int


@dataclass(frozen=True, slots=True)
class Sample:
    """`networks` by interface: rx_bytes, rx_packets, rx_errors, rx_dropped and the same of tx.
    `pids_limit` None is none."""

    read_at: datetime
    cpu: Cpu
    memory: Memory
    pids: int
    pids_limit: int | None
    bytes: tuple[BlockIO, ...] = ()
    operations: tuple[BlockIO, ...] = ()
    networks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def sample(cgroup: str, init_pid: int | None) -> Sample:
    """Of the cgroup, and of the networks of `init_pid` (None leaves them out). Some 0.3 ms.

    Raises WrongState when the group is gone.
    """
    try:
        return _sample(_Group(cgroup), init_pid)
    except (FileNotFoundError, OSError) as error:
        raise WrongState("the container is not running", cgroup=cgroup) from error


class _Group:
    """The files of one cgroup, wherever its controllers are."""

    def __init__(self, path: str) -> None:
        self._names = [name for name in path.split("/") if name]
        self.machine: Hierarchies = hierarchies()

    def folder(self, controller: str) -> Path:
        top = self.machine.of(controller)
        if top is None:
            raise FileNotFoundError(controller)
        return top.joinpath(*self._names)

    def v1(self, controller: str) -> bool:
        return controller in self.machine.controllers

    def text(self, controller: str, name: str) -> str:
        return (self.folder(controller) / name).read_text().strip()

    def number(self, controller: str, name: str) -> int:
        text = self.text(controller, name)
        return _UNLIMITED if text == "max" else int(text)

    def optional(self, controller: str, name: str) -> int:
        with suppress(FileNotFoundError):
            return self.number(controller, name)
        return 0

    def flat(self, controller: str, name: str) -> dict[str, int]:
        lines = self.text(controller, name).splitlines()
        return {key: int(value) for key, value in (line.split(None, 1) for line in lines)}


_UNLIMITED = 1 << 63


def _sample(group: _Group, init_pid: int | None) -> Sample:
    pids_limit = group.number("pids", "pids.max")
    moved, served = _block_io(group)
    return Sample(
        read_at=datetime.now(UTC),
        cpu=_cpu(group),
        memory=_memory(group),
        pids=group.number("pids", "pids.current"),
        pids_limit=None if pids_limit == _UNLIMITED else pids_limit,
        bytes=moved,
        operations=served,
        networks={} if init_pid is None else _networks(init_pid),
    )


def _cpu(group: _Group) -> Cpu:
    system, online = _machine_cpu()
    if not group.v1("cpuacct"):
        found = group.flat("cpu", "cpu.stat")
        return Cpu(
            total=found["usage_usec"] * 1000,
            kernel=found["system_usec"] * 1000,
            user=found["user_usec"] * 1000,
            per_cpu=(),
            system=system,
            online=online,
            periods=found.get("nr_periods", 0),
            throttled_periods=found.get("nr_throttled", 0),
            throttled=found.get("throttled_usec", 0) * 1000,
        )
    split = group.flat("cpuacct", "cpuacct.stat")
    throttling = group.flat("cpu", "cpu.stat") if group.v1("cpu") else {}
    return Cpu(
        total=group.number("cpuacct", "cpuacct.usage"),
        kernel=split["system"] * _TICK,
        user=split["user"] * _TICK,
        per_cpu=tuple(map(int, group.text("cpuacct", "cpuacct.usage_percpu").split())),
        system=system,
        online=online,
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled=throttling.get("throttled_time", 0),
    )


def _machine_cpu() -> tuple[int, int]:
    """moby daemon/stats/collector_unix.go: the first seven numbers of /proc/stat."""
    with open("/proc/stat", encoding="ascii") as file:
        words = file.readline().split()
    return sum(map(int, words[1:8])) * _TICK, len(os.sched_getaffinity(0))


def _memory(group: _Group) -> Memory:
    details = group.flat("memory", "memory.stat")
    if group.v1("memory"):
        limit = group.number("memory", "memory.limit_in_bytes")
        usage = group.number("memory", "memory.usage_in_bytes")
        most = group.number("memory", "memory.max_usage_in_bytes")
        failures = group.number("memory", "memory.failcnt")
    else:
        limit = group.number("memory", "memory.max")
        usage = group.number("memory", "memory.current")
        most = group.optional("memory", "memory.peak")
        failures = 0
    return Memory(usage, min(limit, machine_memory()), most, failures, details)


@cache
def machine_memory() -> int:
    """Bytes of memory this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _block_io(group: _Group) -> tuple[tuple[BlockIO, ...], tuple[BlockIO, ...]]:
    """(bytes, operations)."""
    if not group.v1("blkio"):
        return _block_io_v2(group)
    found = []
    for name in ("io_service_bytes", "io_serviced"):
        try:
            text = group.text("blkio", f"blkio.throttle.{name}_recursive")
        except FileNotFoundError:
            text = group.text("blkio", f"blkio.throttle.{name}")
        found.append(tuple(_block_lines(text)))
    return found[0], found[1]


def _block_lines(text: str) -> Iterator[BlockIO]:
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if len(words) == 4:  # the last line is a total of all devices
            yield BlockIO(int(words[0]), int(words[1]), words[2], int(words[3]))


def _block_io_v2(group: _Group) -> tuple[tuple[BlockIO, ...], tuple[BlockIO, ...]]:
    moved: list[BlockIO] = []
    served: list[BlockIO] = []
    try:
        text = group.text("io", "io.stat")
    except FileNotFoundError:
        text = ""
    for line in text.splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        for key, into, operation in (
            ("rbytes", moved, "read"),
            ("wbytes", moved, "write"),
            ("rios", served, "read"),
            ("wios", served, "write"),
        ):
            if key in values:
                into.append(BlockIO(int(major), int(minor), operation, int(values[key])))
    return tuple(moved), tuple(served)


def _networks(pid: int) -> dict[str, dict[str, int]]:
    found = {}
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]:
        name, _, numbers = line.partition(":")
        if name.strip() != "lo":
            pairs = zip(_NETWORK, map(int, numbers.split()), strict=True)
            found[name.strip()] = {key: value for key, value in pairs if key}
    return found
