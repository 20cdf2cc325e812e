"""Limits of a container: as Docker has them, and as config.json and `runc update` want them.

The runtime translates v1's words to v2's. What this machine's cgroups cannot do is left out by
`fitting`, with Docker's warnings; what is wrong on any machine is refused elsewhere
(engine.containers.checks).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from engine.runtime.cgroups import Hierarchies, hierarchies

_PERIOD = 100_000
_UNLIMITED = -1


@dataclass(frozen=True, slots=True)
class Limits:
    """What `docker update` may change while it runs; None and "" are no limit.

    Sizes in bytes. `memory_swap` counts memory and swap together, -1 is unlimited, None is as
    Docker's default, twice the memory. `nano_cpus` is billionths of a processor. `pids` None or
    -1 is unlimited.
    """

    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    nano_cpus: int | None = None
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    blkio_weight: int | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class Support:
    """What this machine's cgroups can limit (moby pkg/sysinfo)."""

    memory: bool
    swap: bool
    reservation: bool
    swappiness: bool
    oom_kill_disable: bool
    cpu_shares: bool
    cpu_cfs: bool
    cpuset: bool
    blkio_weight: bool
    blkio_weight_device: bool
    blkio_throttle: bool
    pids: bool


@cache
def support() -> Support:
    """Read once."""
    return support_of(hierarchies())


def support_of(found: Hierarchies) -> Support:
    """What these can limit: of v1, of v2, or of both where a machine has them side by side."""

    def v1(controller: str, file: str) -> bool:
        top = found.controllers.get(controller)
        return top is not None and (top / file).exists()

    unified: set[str] = set()
    if found.unified is not None and (found.unified / "cgroup.controllers").exists():
        unified = set((found.unified / "cgroup.controllers").read_text().split())
    memory2 = "memory" in unified
    return Support(
        memory=memory2 or v1("memory", "memory.limit_in_bytes"),
        swap=v1("memory", "memory.memsw.limit_in_bytes") or (memory2 and _swap2(found.unified)),
        reservation=memory2 or v1("memory", "memory.soft_limit_in_bytes"),
        swappiness=v1("memory", "memory.swappiness"),
        oom_kill_disable=v1("memory", "memory.oom_control"),
        cpu_shares="cpu" in unified or v1("cpu", "cpu.shares"),
        cpu_cfs="cpu" in unified or v1("cpu", "cpu.cfs_quota_us"),
        cpuset="cpuset" in unified or "cpuset" in found.controllers,
        blkio_weight="io" in unified or v1("blkio", "blkio.weight"),
        blkio_weight_device=v1("blkio", "blkio.weight_device"),
        blkio_throttle="io" in unified or v1("blkio", "blkio.throttle.read_bps_device"),
        pids="pids" in unified or "pids" in found.controllers,
    )


def _swap2(top: Path | None) -> bool:
    """The top has no memory.swap.max itself; groups below it have where swap is counted."""
    return top is not None and next(top.glob("*/memory.swap.max"), None) is not None


def fitting(limits: Limits, machine: Support | None = None) -> tuple[Limits, tuple[str, ...]]:
    """`limits` without what this machine cannot do, and Docker's words for each
    (moby daemon/daemon_unix.go verifyPlatformContainerResources)."""
    can = machine or support()
    warnings = []
    for lacks, name, value, text in _lacking(limits, can):
        if lacks and getattr(limits, name) not in (None, "", False):
            warnings.append(text)
            limits = replace(limits, **{name: value})
    return limits, tuple(warnings)


def _lacking(limits: Limits, can: Support) -> Iterator[tuple[bool, str, Any, str]]:
    """(whether it is lacking, the field, what it becomes, the warning)."""
    discarded = "or the cgroup is not mounted."
    kernel = "Your kernel does not support"
    yield (
        not can.memory,
        "memory",
        None,
        f"{kernel} memory limit capabilities {discarded} Limitation discarded.",
    )
    yield (
        not can.swap and limits.memory_swap != _UNLIMITED,
        "memory_swap",
        _UNLIMITED,
        f"{kernel} swap limit capabilities {discarded} Memory limited without swap.",
    )
    yield (
        not can.swappiness,
        "memory_swappiness",
        None,
        f"{kernel} memory swappiness capabilities, {discarded} Memory swappiness discarded.",
    )
    yield (
        not can.reservation,
        "memory_reservation",
        None,
        f"{kernel} memory soft limit capabilities {discarded} Limitation discarded.",
    )
    yield (
        not can.oom_kill_disable,
        "oom_kill_disable",
        False,
        f"{kernel} OomKillDisable. OomKillDisable discarded.",
    )
    yield (
        not can.pids,
        "pids",
        None,
        f"{kernel} PIDs limit capabilities {discarded} PIDs limit discarded.",
    )
    yield (not can.cpu_shares, "cpu_shares", None, f"{kernel} CPU shares. Shares discarded.")
    for name in ("cpu_period", "cpu_quota"):
        words = name.replace("cpu_", "CPU CFS ")
        yield (not can.cpu_cfs, name, None, f"{kernel} {words}. {words[8:].title()} discarded.")
    for name in ("cpuset_cpus", "cpuset_mems"):
        yield (not can.cpuset, name, "", f"{kernel} cpuset. Cpuset discarded.")
    yield (
        not can.blkio_weight,
        "blkio_weight",
        None,
        f"{kernel} Block I/O weight {discarded} Weight discarded.",
    )


def as_oci(limits: Limits) -> dict[str, Any]:
    """config-linux.md `resources`, without devices; keys only for what is set."""
    built: dict[str, Any] = {}
    memory = _set(
        limit=limits.memory or None,
        swap=_swap(limits),
        reservation=limits.memory_reservation or None,
        swappiness=limits.memory_swappiness,
        disableOOMKiller=limits.oom_kill_disable or None,
    )
    cpu = _set(
        shares=limits.cpu_shares or None,
        quota=limits.cpu_quota or None,
        period=limits.cpu_period or None,
        cpus=limits.cpuset_cpus or None,
        mems=limits.cpuset_mems or None,
    )
    if limits.nano_cpus:
        cpu |= {"period": _PERIOD, "quota": limits.nano_cpus * _PERIOD // 1_000_000_000}
    if memory:
        built["memory"] = memory
    if cpu:
        built["cpu"] = cpu
    if limits.blkio_weight:
        built["blockIO"] = {"weight": limits.blkio_weight}
    if limits.pids:
        built["pids"] = {"limit": limits.pids}
    return built


# What takes a limit away from a running container; cpusets go back to the parent's at its next
# start.
_UNSET: dict[str, dict[str, object]] = {
    "memory": {"limit": -1, "swap": -1, "reservation": -1},
    "cpu": {"quota": -1, "shares": 1024},
    "blockIO": {"weight": 500},
    "pids": {"limit": -1},
}


def changes(before: Limits, after: Limits) -> dict[str, Any]:
    """What the runtime is told so that a container with `before` has `after`."""
    had, built = as_oci(before), as_oci(after)
    for name, values in _UNSET.items():
        for key, unset in values.items():
            if key in had.get(name, {}) and key not in built.get(name, {}):
                built.setdefault(name, {})[key] = unset
    return built


def merged(before: Limits, asked: Limits) -> Limits:
    """As `docker update`: what is set in `asked` takes the place of what was."""
    values = {
        field.name: value
        for field in fields(asked)
        if (value := getattr(asked, field.name)) not in (None, "", False)
    }
    return replace(before, **values)


def _swap(limits: Limits) -> int | None:
    if not limits.memory_swap and limits.memory and support().swap:
        return 2 * limits.memory
    return limits.memory_swap or None


def _set(**values: object) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
