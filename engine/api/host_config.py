"""HostConfig of a request as engine.containers' HostOptions.

Every key is either read here or refused where it is set: an option that does nothing would be
believed. What is wrong with a value is for engine.containers.checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from engine.api.binds import read_bind, read_mounts, refuse_unread
from engine.api.fields import Fields
from engine.containers.options import (
    Device,
    HostOptions,
    Limits,
    LogConfig,
    RestartPolicy,
    Throttle,
    ThrottleKind,
    Ulimit,
)
from engine.containers.options import RestartName as RestartName
from engine.errors import InvalidInput, Unsupported
from engine.network.spec import PortBinding, Protocol

# Given back by inspect and otherwise without meaning here, as in Docker on Linux.
_ECHOED = ("ContainerIDFile", "ConsoleSize", "NetworkMode", "PortBindings", "AutoRemove")
# Windows' and cgroup v1's own; clients send their defaults.
_MEANINGLESS: Mapping[str, tuple[object, ...]] = {
    "Isolation": ("default",),
    "VolumeDriver": ("local",),
}
_THROTTLES: Mapping[str, ThrottleKind] = {
    "BlkioDeviceReadBps": "read_bps",
    "BlkioDeviceWriteBps": "write_bps",
    "BlkioDeviceReadIOps": "read_iops",
    "BlkioDeviceWriteIOps": "write_iops",
    "BlkioWeightDevice": "weight",
}
# moby's own lists may be given as they are, or cleared for a privileged container.
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def read_host(host: Fields) -> HostOptions:
    """Raises InvalidInput for another type, Unsupported for what is not there."""
    for key in _ECHOED:
        host.raw(key)
    for key, defaults in _MEANINGLESS.items():
        if (value := host.raw(key)) and value not in defaults:
            raise Unsupported(f"HostConfig.{key} {value} is not supported")
    _read_paths(host)
    options = HostOptions(
        limits=read_limits(host),
        restart=read_restart(host.object("RestartPolicy")),
        log=_read_log(host.object("LogConfig")),
        shm_size=host.number("ShmSize") or 0,
        ulimits=tuple(_read_ulimit(one) for one in host.objects("Ulimits")),
        cap_add=host.texts("CapAdd"),
        cap_drop=host.texts("CapDrop"),
        security_opt=host.texts("SecurityOpt"),
        privileged=host.flag("Privileged"),
        read_only=host.flag("ReadonlyRootfs"),
        init=host.choice("Init"),
        tmpfs=host.mapping("Tmpfs"),
        mounts=(*map(read_bind, host.texts("Binds")), *read_mounts(host.objects("Mounts"))),
        volumes_from=host.texts("VolumesFrom"),
        group_add=host.texts("GroupAdd"),
        devices=tuple(_read_device(one) for one in host.objects("Devices")),
        device_rules=host.texts("DeviceCgroupRules"),
        throttles=tuple(_read_throttles(host)),
        sysctls=host.mapping("Sysctls"),
        extra_hosts=host.texts("ExtraHosts"),
        dns=host.texts("Dns"),
        dns_search=host.texts("DnsSearch"),
        dns_options=host.texts("DnsOptions"),
        ipc_mode=host.text("IpcMode"),
        pid_mode=host.text("PidMode"),
        uts_mode=host.text("UTSMode"),
        cgroupns_mode=host.text("CgroupnsMode"),
        userns_mode=host.text("UsernsMode"),
        cgroup_parent=host.text("CgroupParent"),
        links=host.texts("Links"),
        oom_score_adj=host.number("OomScoreAdj") or 0,
        runtime=host.text("Runtime"),
        annotations=host.mapping("Annotations"),
        publish_all=host.flag("PublishAllPorts"),
    )
    refuse_unread(host, "HostConfig")
    return options


def read_limits(host: Fields) -> Limits:
    """What `docker update` may change too."""
    swappiness = host.number("MemorySwappiness")
    return Limits(
        memory=host.number("Memory") or None,
        memory_swap=host.number("MemorySwap") or None,
        memory_reservation=host.number("MemoryReservation") or None,
        memory_swappiness=None if swappiness == -1 else swappiness,
        oom_kill_disable=host.flag("OomKillDisable"),
        nano_cpus=host.number("NanoCpus") or None,
        cpu_shares=host.number("CpuShares") or None,
        cpu_quota=host.number("CpuQuota") or None,
        cpu_period=host.number("CpuPeriod") or None,
        cpuset_cpus=host.text("CpusetCpus"),
        cpuset_mems=host.text("CpusetMems"),
        blkio_weight=host.number("BlkioWeight") or None,
        pids=host.number("PidsLimit") or None,
    )


def read_restart(policy: Fields) -> RestartPolicy:
    name = policy.text("Name") or "no"
    return RestartPolicy(cast(RestartName, name), policy.number("MaximumRetryCount") or 0)


def _read_log(log: Fields) -> LogConfig:
    return LogConfig(log.text("Type") or "json-file", log.mapping("Config"))


def _read_ulimit(one: Fields) -> Ulimit:
    return Ulimit(one.text("Name"), one.number("Soft") or 0, one.number("Hard") or 0)


def _read_device(one: Fields) -> Device:
    path = one.text("PathOnHost")
    return Device(path, one.text("PathInContainer") or path, one.text("CgroupPermissions") or "rwm")


def _read_throttles(host: Fields) -> Iterator[Throttle]:
    for key, kind in _THROTTLES.items():
        for one in host.objects(key):
            value = one.number("Weight" if kind == "weight" else "Rate") or 0
            yield Throttle(kind, one.text("Path"), value)


def _read_paths(host: Fields) -> None:
    for key, default in (("MaskedPaths", MASKED_PATHS), ("ReadonlyPaths", READONLY_PATHS)):
        other = host.raw(key) is not None and set(host.texts(key)) != set(default)
        if other and not host.flag("Privileged"):
            raise Unsupported(f"HostConfig.{key} other than the default is not supported")


def read_ports(host: Fields) -> tuple[PortBinding, ...]:
    """HostConfig.PortBindings. Raises InvalidInput in moby's words, Unsupported for a range."""
    bindings = host.raw("PortBindings")
    found = []
    for port in host.names("PortBindings"):
        entries = Fields(bindings, "PortBindings")
        number, protocol = split_port(port)
        given = list(entries.objects(port)) or [Fields({}, "PortBindings")]
        found += [
            PortBinding(
                container_port=number,
                protocol=cast(Protocol, protocol),
                host_ip=one.text("HostIp") or "0.0.0.0",
                host_port=_host_port(one.text("HostPort")),
            )
            for one in given
        ]
    return tuple(found)


def split_port(text: str) -> tuple[int, str]:
    """`80/tcp`, `80` -> (80, "tcp"). Raises InvalidInput."""
    number, _, protocol = text.partition("/")
    if not (number.isascii() and number.isdecimal() and 0 < int(number) < 65536):
        raise InvalidInput(f'invalid port specification: "{text}"')
    return int(number), protocol.lower() or "tcp"


def _host_port(text: str) -> int:
    first, dash, last = text.partition("-")
    if dash and first != last:
        raise Unsupported(
            f"a range of host ports for one port is not supported: {text}",
            hint="name one port, or none for a free one",
        )
    if not first:
        return 0
    if not (first.isascii() and first.isdecimal() and int(first) < 65536):
        raise InvalidInput(f'invalid port specification: "{text}"')
    return int(first)
