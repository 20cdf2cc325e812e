"""What is wrong with a container's options on any machine: a flat list, in moby's words.

The words are those of moby's daemon (daemon/daemon_unix.go, daemon/container.go,
runconfig/hostconfig_unix.go), so that the API can pass them on. What this machine cannot limit is
`engine.runtime.resources.fitting`; what root forbids `engine.containers.policy`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from itertools import chain

from engine.containers import throttles
from engine.containers.device_rules import DeviceRule
from engine.containers.options import HostOptions, Limits
from engine.containers.rotation import limits_of
from engine.containers.security import security
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput, Unsupported
from engine.runtime import capabilities
from engine.runtime.cgroups import hierarchies

_MIN_MEMORY = 6 * 1024 * 1024
_CPUS = re.compile(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*")
_ACCESS = re.compile(r"[rwm]{1,3}")
_LOG_OPTIONS = {
    "json-file": {"max-size", "max-file", "compress", "labels", "labels-regex"}
    | {"env", "env-regex", "tag", "mode", "max-buffer-size"},
    "local": {"max-size", "max-file", "compress", "mode", "max-buffer-size"},
    "none": {"mode", "max-buffer-size"},
}
_OTHER_LOGS = frozenset(
    {"awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "logentries", "splunk"}
    | {"syslog"}
)
_IPC_SYSCTLS = frozenset(
    {"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall"}
    | {"kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"}
)
_RUNTIMES = frozenset({"", "runc", "crun", "io.containerd.runc.v2"})


def check(settings: ContainerSettings) -> None:
    """Raises InvalidInput (with `field`) or Unsupported for the first thing that is wrong."""
    host = settings.host
    check_limits(host.limits)
    throttles.check(host.throttles)
    check_restart(host, settings.auto_remove)
    _check_unsupported(host)
    _check_log(host)
    _check_numbers(host)
    _check_modes(settings)
    _check_network(settings)
    _check_rights(settings)
    _check_health(settings)


def check_limits(limits: Limits) -> None:
    """The limits alone, as an update gives them together with those before."""
    for wrong, field, text in chain(_memory(limits), _cpu(limits)):
        if wrong:
            raise InvalidInput(text, field=field)


def check_restart(host: HostOptions, auto_remove: bool) -> None:
    policy = host.restart
    if policy.name not in ("no", "always", "unless-stopped", "on-failure"):
        raise InvalidInput(f"invalid restart policy '{policy.name}'", field="restart")
    if policy.max_retries and policy.name != "on-failure":
        raise InvalidInput(
            f"maximum retry count cannot be used with restart policy '{policy.name}'",
            field="restart",
        )
    if policy.max_retries < 0:
        raise InvalidInput("maximum retry count cannot be negative", field="restart")
    if auto_remove and policy.name != "no":
        raise InvalidInput(
            "can't create 'AutoRemove' container with restart policy", field="restart"
        )


def _memory(limits: Limits) -> Iterator[tuple[bool, str, str]]:
    memory, swap = limits.memory or 0, limits.memory_swap or 0
    reservation, swappiness = limits.memory_reservation or 0, limits.memory_swappiness
    yield (
        memory != 0 and memory < _MIN_MEMORY,
        "memory",
        "Minimum memory limit allowed is 6MB",
    )
    yield (
        memory > 0 and 0 < swap < memory,
        "memory_swap",
        "Minimum memoryswap limit should be larger than memory limit, see usage",
    )
    yield (
        memory == 0 and swap > 0,
        "memory_swap",
        "You should always set the Memory limit when using Memoryswap limit, see usage",
    )
    yield (
        swappiness is not None and not -1 <= swappiness <= 100,
        "memory_swappiness",
        f"Invalid value: {swappiness}, valid memory swappiness range is 0-100",
    )
    yield (
        reservation != 0 and reservation < _MIN_MEMORY,
        "memory_reservation",
        "Minimum memory reservation allowed is 6MB",
    )
    yield (
        0 < memory < reservation,
        "memory_reservation",
        "Minimum memory limit can not be less than memory reservation limit, see usage",
    )


def _cpu(limits: Limits) -> Iterator[tuple[bool, str, str]]:
    nano, count = limits.nano_cpus or 0, os.cpu_count() or 1
    for name in ("period", "quota"):
        yield (
            nano > 0 and bool(getattr(limits, f"cpu_{name}")),
            "cpus",
            f"Conflicting options: Nano CPUs and CPU {name.title()} cannot both be set",
        )
    yield (
        not 0 <= nano <= count * 10**9,
        "cpus",
        f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available",
    )
    period, quota, weight = limits.cpu_period or 0, limits.cpu_quota or 0, limits.blkio_weight or 0
    yield (
        period != 0 and not 1000 <= period <= 1_000_000,
        "cpu_period",
        "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
    )
    yield (
        0 < quota < 1000,
        "cpu_quota",
        "CPU cfs quota can not be less than 1ms (i.e. 1000)",
    )
    yield (
        weight != 0 and not 10 <= weight <= 1000,
        "blkio_weight",
        "Range of blkio weight is from 10 to 1000",
    )
    yield (
        (limits.cpu_shares or 0) < 0,
        "cpu_shares",
        f"invalid CPU shares ({limits.cpu_shares}): value must be a positive integer",
    )
    for name, what, asked in (
        ("cpus", "CPUs", limits.cpuset_cpus),
        ("mems", "memory nodes", limits.cpuset_mems),
    ):
        if not asked:
            continue
        yield (
            not _CPUS.fullmatch(asked),
            f"cpuset_{name}",
            f"Invalid value {asked} for cpuset {name}",
        )
        there = _available(name)
        yield (
            bool(there) and not _numbers(asked) <= _numbers(there),
            f"cpuset_{name}",
            f"Requested {what} are not available - requested {asked}, available: {there}",
        )


@cache
def _available(name: str) -> str:
    """What there is, as the kernel writes it; "" when it does not say."""
    top = hierarchies().of("cpuset")
    for file in (f"cpuset.{name}.effective", f"cpuset.{name}", f"cpuset.effective_{name}"):
        if top is not None and (top / file).exists():
            return (top / file).read_text().strip()
    return ""


def _numbers(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _check_unsupported(host: HostOptions) -> None:
    for asked, text, hint in (
        (host.cgroup_parent, "a cgroup parent of one's own is not supported", "leave it out"),
        (
            host.userns_mode not in ("", "host"),
            "user namespaces are not supported yet",
            "leave the user namespace mode out",
        ),
    ):
        if asked:
            raise Unsupported(text, hint=hint)
    if host.runtime not in _RUNTIMES:
        raise InvalidInput(f"unknown or invalid runtime name: {host.runtime}", field="runtime")


def _check_log(host: HostOptions) -> None:
    driver = host.log.driver
    if driver in _OTHER_LOGS:
        raise Unsupported(
            f"the log driver {driver} is not supported", hint="choose json-file, local or none"
        )
    known = _LOG_OPTIONS.get(driver)
    if known is None:
        raise InvalidInput(f"logger: no log driver named '{driver}' is registered", field="log")
    for option, value in host.log.options.items():
        if option not in known:
            raise InvalidInput(f"unknown log opt '{option}' for {driver} log driver", field="log")
        try:
            re.compile(value if option.endswith("-regex") else "")
        except re.error as error:
            raise InvalidInput(
                f"the log opt {option} is no regular expression: {value}", field="log"
            ) from error
    if host.log.options.get("compress", "false") not in ("false", "0", "f", "F", "FALSE", "False"):
        raise Unsupported(
            "logs are not compressed: the log opt compress is not supported",
            hint="leave it out; max-size and max-file keep a log small",
        )
    limits_of(host.log)


def _check_numbers(host: HostOptions) -> None:
    if host.shm_size < 0:
        raise InvalidInput("SHM size can not be less than 0", field="shm_size")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidInput(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]",
            field="oom_score_adj",
        )
    for ulimit in host.ulimits:
        ulimit.check()


def _check_modes(settings: ContainerSettings) -> None:
    host = settings.host
    for name, mode, known in (
        ("IPC", host.ipc_mode, ("", "none", "private", "shareable", "host")),
        ("PID", host.pid_mode, ("", "host")),
        ("UTS", host.uts_mode, ("", "host")),
        ("cgroup namespace", host.cgroupns_mode, ("", "private", "host")),
    ):
        joins = name in ("IPC", "PID") and mode.startswith("container:") and len(mode) > 10
        if mode not in known and not joins:
            raise InvalidInput(f"invalid {name} mode: {mode}", field="modes")


def _check_network(settings: ContainerSettings) -> None:
    host, mode = settings.host, settings.network_mode
    if mode.startswith("container:"):
        for asked, text in (
            (host.dns, "dns and the network mode"),
            (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
            (
                settings.ports or host.publish_all,
                "port publishing and the container type network mode",
            ),
        ):
            if asked:
                raise InvalidInput(f"conflicting options: {text}", field="network")
    for address in host.dns:
        if not _is_address(address):
            raise InvalidInput(f"bad nameserver address: {address}", field="dns")
    for words in (*host.dns_search, *host.dns_options):
        if not words.isprintable() or " " in words:
            raise InvalidInput(f"{words!r} is not a valid domain", field="dns")
    for entry in host.extra_hosts:
        name, found, address = entry.partition(":")
        if not found or not name or not name.isprintable() or " " in name:
            raise InvalidInput(f'bad format for add-host: "{entry}"', field="extra_hosts")
        if address != "host-gateway" and not _is_address(address.strip("[]")):
            raise InvalidInput(f'invalid IP address in add-host: "{address}"', field="extra_hosts")


def _check_rights(settings: ContainerSettings) -> None:
    host = settings.host
    security(host.security_opt)
    for which, field, names in (
        ("CapAdd", "cap_add", host.cap_add),
        ("CapDrop", "cap_drop", host.cap_drop),
    ):
        for name in names:
            try:
                capabilities.resolve(add=(name,))
            except InvalidInput as error:
                full = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
                raise InvalidInput(
                    f'invalid {which}: unknown capability: "{full}"',
                    hint=error.hint,
                    field=field,
                ) from error
    for device in host.devices:
        if not _ACCESS.fullmatch(device.permissions):
            raise InvalidInput(f"invalid device mode: {device.permissions}", field="devices")
        if not device.host.startswith("/") or not device.container.startswith("/"):
            raise InvalidInput(f"not a device's path: {device.host}", field="devices")
    for rule in host.device_rules:
        DeviceRule.parse(rule)
    for name, value in host.sysctls.items():
        if "\0" in value or not _is_namespaced(name, settings):
            raise InvalidInput(
                f'sysctl "{name}" is not in a separate kernel namespace',
                hint="only those of the container's own ipc and network can be set",
                field="sysctls",
            )
    if "" in host.annotations:
        raise InvalidInput(
            "invalid Annotations: the empty string is not permitted as an annotation key",
            field="annotations",
        )


def _is_namespaced(name: str, settings: ContainerSettings) -> bool:
    """libcontainer/configs/validate: and the namespace must be the container's own."""
    if ".." in name or "/" in name or not name.isprintable():
        return False
    if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        return settings.host.ipc_mode in ("", "private", "shareable", "none")
    if name.startswith("net."):
        mode = settings.network_mode
        return mode != "host" and not mode.startswith("container:")
    return False


def _check_health(settings: ContainerSettings) -> None:
    health = settings.healthcheck
    if health is None:
        return
    for name, value in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):
        if value != 0 and value < 1_000_000:
            raise InvalidInput(
                f"{name} in Healthcheck cannot be less than 1ms", field="healthcheck"
            )
    if health.retries < 0:
        raise InvalidInput("Retries in Healthcheck cannot be negative", field="healthcheck")


def _is_address(text: str) -> bool:
    for kind in (IPv4Address, IPv6Address):
        try:
            kind(text)
            return True
        except AddressValueError:
            continue
    return False
