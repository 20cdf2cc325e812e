"""A container's settings in plain words: limits, restarts, health, rights. What is at its default
is left out; a group without anything says so in one sentence.

Values for templates/containers/facts.html. Where it is mounted and connected is in
console.container_places.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone
from django.utils.translation import gettext, ngettext, pgettext

from console.forms.options import RESTARTS
from engine.containers.health import Probe
from engine.containers.options import Device, HostOptions, Limits, RestartPolicy, Throttle
from engine.containers.security import security
from engine.containers.settings import ContainerSettings
from engine.models import Container
from engine.runtime.rlimits import Ulimit

_SHM = 64 * 1024 * 1024
_DEFAULT_PERIOD = 100_000


@dataclass(frozen=True, slots=True)
class Fact:
    """`values` are words for people, or with `code` as machines read them. `until` is a moment to
    come, told by the browser's clock after the values."""

    term: str
    values: tuple[str, ...]
    code: bool = False
    until: datetime | None = None

    @property
    def left(self) -> int:
        """Whole seconds until then."""
        if self.until is None:
            return 0
        return max(0, math.ceil((self.until - timezone.now()).total_seconds()))


@dataclass(frozen=True, slots=True)
class Group:
    """`empty` is shown where there are no facts."""

    key: str
    title: str
    facts: tuple[Fact, ...]
    empty: str


def settings_of(container: Container) -> ContainerSettings:
    """The row's; what a row does not say is at its default."""
    own = {"id": container.uid, "name": container.name, "image": "", "chain": ""}
    return ContainerSettings.from_json({**own, **container.settings})


def groups(container: Container, settings: ContainerSettings) -> list[Group]:
    host = settings.host
    return [
        Group(
            "limits",
            gettext("Limits"),
            tuple(_limits(host)),
            gettext("None: it may use all the machine has."),
        ),
        Group("restarts", gettext("Restarts"), tuple(_restarts(container, host.restart)), ""),
        Group(
            "health",
            gettext("Health check"),
            tuple(_health(container, settings)),
            gettext("None: that it runs is all that is known."),
        ),
        Group(
            "rights",
            gettext("Rights and isolation"),
            tuple(_rights(settings)),
            gettext("The usual ones: a container of its own, with docker's capabilities."),
        ),
    ]


def binary(value: int) -> str:
    """512 MiB, 1.5 GiB: memory is given in powers of two."""
    number, unit = float(value), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):  # noqa: B007 - the unit it stops at
        if number < 1024:
            break
        number /= 1024
    return f"{number:.4g} {unit}"


def processors(limits: Limits) -> float | None:
    """How many it may use the time of; None for all."""
    if limits.nano_cpus:
        return limits.nano_cpus / 10**9
    if limits.cpu_quota and limits.cpu_quota > 0:
        return limits.cpu_quota / (limits.cpu_period or _DEFAULT_PERIOD)
    return None


def _fact(term: str, *values: str, code: bool = False) -> Iterator[Fact]:
    """One, unless nothing is said."""
    found = tuple(value for value in values if value)
    if found:
        yield Fact(term, found, code)


def _limits(host: HostOptions) -> Iterator[Fact]:
    limits = host.limits
    if limits.memory:
        yield Fact(gettext("Memory"), (binary(limits.memory),))
    yield from _swap(limits)
    if limits.memory_reservation:
        yield Fact(gettext("When memory is scarce"), (binary(limits.memory_reservation),))
    if limits.memory_swappiness is not None and limits.memory_swappiness >= 0:
        yield Fact(gettext("Swappiness"), (str(limits.memory_swappiness),))
    if limits.oom_kill_disable:
        yield Fact(gettext("Out of memory"), (gettext("it waits, and is not ended"),))
    cpus = processors(limits)
    if cpus is not None:
        yield Fact(gettext("Processors"), (f"{cpus:.3g}",))
    if limits.cpu_shares:
        yield Fact(
            gettext("Share of the processors"),
            (gettext("%(n)s, where 1024 is usual") % {"n": limits.cpu_shares},),
        )
    yield from _fact(gettext("Only on processors"), limits.cpuset_cpus, code=True)
    yield from _fact(gettext("Only on memory nodes"), limits.cpuset_mems, code=True)
    if limits.blkio_weight:
        yield Fact(
            gettext("Share of the disk"),
            (gettext("%(n)s, where 500 is usual") % {"n": limits.blkio_weight},),
        )
    yield from _fact(gettext("Reads and writes of devices"), *map(_throttle, host.throttles))
    if limits.pids and limits.pids > 0:
        yield Fact(gettext("Processes"), (str(limits.pids),))
    if host.shm_size not in (0, _SHM):
        yield Fact(gettext("Shared memory (/dev/shm)"), (binary(host.shm_size),))
    yield from _fact(gettext("Ulimits"), *map(_ulimit, host.ulimits))


def _throttle(one: Throttle) -> str:
    device = {"device": one.path, "n": one.value}
    if one.kind == "weight":
        return gettext("%(device)s: share %(n)s, where 500 is usual") % device
    if one.kind == "read_iops":
        return gettext("%(device)s: at most %(n)s reads a second") % device
    if one.kind == "write_iops":
        return gettext("%(device)s: at most %(n)s writes a second") % device
    rate = {"device": one.path, "size": binary(one.value)}
    if one.kind == "read_bps":
        return gettext("%(device)s: reads %(size)s a second at most") % rate
    return gettext("%(device)s: writes %(size)s a second at most") % rate


def _swap(limits: Limits) -> Iterator[Fact]:
    swap = limits.memory_swap
    if not limits.memory or not swap or swap == 2 * limits.memory:
        return  # as much again as memory: the default
    words = (
        gettext("without a limit")
        if swap < 0
        else gettext("none")
        if swap == limits.memory
        else binary(swap - limits.memory)
    )
    yield Fact(gettext("Swap"), (words,))


def _ulimit(one: Ulimit) -> str:
    soft, hard = (gettext("unlimited") if n < 0 else f"{n}" for n in (one.soft, one.hard))
    if soft == hard:
        return f"{one.name} {soft}"
    return gettext("%(name)s %(soft)s, at most %(hard)s") % {
        "name": one.name,
        "soft": soft,
        "hard": hard,
    }


def _restarts(container: Container, policy: RestartPolicy) -> Iterator[Fact]:
    word = str(dict(RESTARTS).get(policy.name, policy.name))
    if policy.max_retries:
        most = ngettext("at most once", "at most %(n)s times", policy.max_retries)
        word = f"{word}, {most % {'n': policy.max_retries}}"
    yield Fact(gettext("Started again by itself"), (word,))
    if container.restart_count:
        times = ngettext("once so far", "%(n)s times so far", container.restart_count)
        yield Fact(gettext("Restarted"), (times % {"n": container.restart_count},))
    if container.state == Container.State.RESTARTING and container.restart_at is not None:
        yield Fact(gettext("Next try in"), (), until=container.restart_at)


def _health(container: Container, settings: ContainerSettings) -> Iterator[Fact]:
    shell = (container.image.config.get("config") or {}).get("Shell") if container.image else None
    probe = Probe.of(settings.healthcheck, shell or ())
    if probe is None:
        return
    if container.is_running and container.health:
        yield Fact(gettext("Now"), (_status(container),))
    yield Fact(gettext("Command"), (" ".join(probe.argv),), code=True)
    yield Fact(
        gettext("How often"),
        (
            gettext("every %(interval)s s, each within %(timeout)s s")
            % {"interval": f"{probe.interval:g}", "timeout": f"{probe.timeout:g}"},
        ),
    )
    if probe.start_period:
        yield Fact(
            gettext("While it starts"),
            (
                gettext("for %(period)s s, every %(interval)s s, failures do not count")
                % {"period": f"{probe.start_period:g}", "interval": f"{probe.start_interval:g}"},
            ),
        )
    failures = ngettext("after one failure", "after %(n)s failures in a row", probe.retries)
    yield Fact(gettext("Unhealthy"), (failures % {"n": probe.retries},))


def _status(container: Container) -> str:
    health = container.health or {}
    words = {
        "starting": gettext("not checked yet"),
        "healthy": pgettext("health", "healthy"),
        "unhealthy": pgettext("health", "unhealthy"),
    }
    word = words.get(health.get("status", ""), "")
    streak = int(health.get("failing_streak", 0))
    if not streak:
        return word
    failed = ngettext("failed once", "failed %(n)s times in a row", streak) % {"n": streak}
    return f"{word}, {failed}"


def _rights(settings: ContainerSettings) -> Iterator[Fact]:
    host = settings.host
    if host.privileged:
        yield Fact(gettext("Privileged"), (gettext("nearly all rights of the machine's root"),))
    yield from _fact(gettext("Capabilities added"), " ".join(host.cap_add), code=True)
    yield from _fact(gettext("Capabilities dropped"), " ".join(host.cap_drop), code=True)
    yield from _fact(gettext("Security"), *_security(host.security_opt))
    if host.read_only:
        yield Fact(gettext("Its files"), (gettext("read-only: it writes to its volumes alone"),))
    if host.init:
        yield Fact(gettext("First process"), (gettext("one that tidies up (--init)"),))
    yield from _fact(gettext("Further groups"), " ".join(host.group_add), code=True)
    yield from _fact(gettext("Devices"), *map(_device, host.devices), code=True)
    yield from _fact(gettext("Rules for devices"), *host.device_rules, code=True)
    yield from _fact(gettext("Kernel settings"), *_pairs(host.sysctls), code=True)
    yield from _fact(gettext("Shared"), *_shared(settings))
    if host.oom_score_adj:
        yield Fact(
            gettext("Ended first when memory is full"),
            (gettext("score %(n)s of -1000 to 1000") % {"n": f"{host.oom_score_adj:+d}"},),
        )
    if host.log.driver != "json-file" or host.log.options:
        yield from _fact(gettext("Log"), host.log.driver, *_pairs(host.log.options), code=True)
    if settings.stop_signal != "SIGTERM" or settings.stop_timeout != 10:
        yield Fact(gettext("Stopping"), (_stopping(settings),))
    if host.runtime not in ("", "runc", "io.containerd.runc.v2"):
        yield from _fact(gettext("Runtime"), host.runtime, code=True)
    yield from _fact(gettext("Annotations"), *_pairs(host.annotations), code=True)


def _security(options: Iterable[str]) -> Iterator[str]:
    asked = security(options)
    if asked.no_new_privileges:
        yield gettext("no new privileges: programs like sudo gain nothing")
    if asked.seccomp == "":
        yield gettext("every system call allowed (seccomp=unconfined)")
    elif asked.seccomp is not None:
        yield gettext("a list of system calls of its own (seccomp)")
    if asked.apparmor:
        yield gettext("AppArmor profile %(name)s") % {"name": asked.apparmor}


def _shared(settings: ContainerSettings) -> Iterator[str]:
    host = settings.host
    for mode, what in (
        (host.pid_mode, gettext("processes")),
        (host.ipc_mode, gettext("memory between processes (IPC)")),
        (host.uts_mode, gettext("host name")),
        (host.cgroupns_mode, gettext("control groups")),
    ):
        if mode == "host":
            yield gettext("%(what)s: the machine's") % {"what": what}
        elif mode.startswith("container:"):
            name = mode.removeprefix("container:")[:12]
            yield gettext("%(what)s: those of %(name)s") % {"what": what, "name": name}


def _stopping(settings: ContainerSettings) -> str:
    values = {"signal": settings.stop_signal, "n": settings.stop_timeout}
    if settings.stop_timeout < 0:
        return gettext("%(signal)s, and it may take as long as it wants") % values
    return gettext("%(signal)s, killed after %(n)s s") % values


def _device(one: Device) -> str:
    at = "" if one.container == one.host else f" → {one.container}"
    return f"{one.host}{at} ({one.permissions})"


def _pairs(values: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in values.items()]
