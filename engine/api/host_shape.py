"""HostConfig as inspect gives it back: every key, as it was asked for, or at its default.

What an update may change is taken from the settings; the rest is the request's own text where there
was one, and made from the settings where a page made the container.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.api.host_config import MASKED_PATHS, READONLY_PATHS
from engine.containers.options import HostOptions, Mount
from engine.containers.settings import ContainerSettings
from engine.runtime.cgroups import hierarchies

JSON = dict[str, Any]
_SHM = 64 * 1024 * 1024


def _defaults() -> JSON:
    return {
        "Binds": None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": "json-file", "Config": {}},
        "NetworkMode": "default",
        "PortBindings": {},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": False,
        "VolumeDriver": "",
        "VolumesFrom": None,
        "ConsoleSize": [0, 0],
        "CapAdd": None,
        "CapDrop": None,
        "CgroupnsMode": "private" if hierarchies().pure_v2 else "host",
        "Dns": [],
        "DnsOptions": [],
        "DnsSearch": [],
        "ExtraHosts": None,
        "GroupAdd": None,
        "IpcMode": "private",
        "Cgroup": "",
        "Links": None,
        "OomScoreAdj": 0,
        "PidMode": "",
        "Privileged": False,
        "PublishAllPorts": False,
        "ReadonlyRootfs": False,
        "SecurityOpt": None,
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": _SHM,
        "Runtime": "runc",
        "Isolation": "",
        "CpuShares": 0,
        "Memory": 0,
        "NanoCpus": 0,
        "CgroupParent": "",
        "BlkioWeight": 0,
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": [],
        "BlkioDeviceWriteBps": [],
        "BlkioDeviceReadIOps": [],
        "BlkioDeviceWriteIOps": [],
        "CpuPeriod": 0,
        "CpuQuota": 0,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": "",
        "CpusetMems": "",
        "Devices": [],
        "DeviceCgroupRules": None,
        "DeviceRequests": None,
        "KernelMemory": 0,
        "KernelMemoryTCP": 0,
        "MemoryReservation": 0,
        "MemorySwap": 0,
        "MemorySwappiness": None,
        "OomKillDisable": False,
        "PidsLimit": None,
        "Ulimits": [],
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "MaskedPaths": list(MASKED_PATHS),
        "ReadonlyPaths": list(READONLY_PATHS),
    }


def host_shape(settings: ContainerSettings) -> JSON:
    """Whole. `settings.docker` has the request's own, from the API."""
    asked = settings.docker.get("HostConfig")
    host = settings.host
    values = _defaults()
    if isinstance(asked, Mapping) and asked:
        values.update({key: value for key, value in asked.items() if value is not None})
        values.update(
            {key: None for key, value in asked.items() if value is None and key in _LISTS}
        )
    else:
        values.update(_made(settings))
    values.update(_changeable(host))
    for key, default in (("IpcMode", "private"), ("Runtime", "runc"), ("ShmSize", _SHM)):
        values[key] = values[key] or default
    values["CgroupnsMode"] = values["CgroupnsMode"] or _defaults()["CgroupnsMode"]
    values["LogConfig"] = {"Type": host.log.driver, "Config": dict(host.log.options)}
    values["AutoRemove"] = settings.auto_remove
    if host.privileged:
        values["MaskedPaths"] = values["ReadonlyPaths"] = None
    return values


# null and [] are told apart by clients that look for changes (compose).
_LISTS = frozenset(
    {"Binds", "Dns", "DnsOptions", "DnsSearch", "Devices", "Ulimits", "BlkioWeightDevice"}
    | {"BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps"}
    | {"BlkioDeviceWriteIOps"}
)


def _changeable(host: HostOptions) -> JSON:
    limits = host.limits
    swap = limits.memory_swap
    return {
        "RestartPolicy": {
            "Name": host.restart.name,
            "MaximumRetryCount": host.restart.max_retries,
        },
        "CpuShares": limits.cpu_shares or 0,
        "Memory": limits.memory or 0,
        "NanoCpus": limits.nano_cpus or 0,
        "BlkioWeight": limits.blkio_weight or 0,
        "CpuPeriod": limits.cpu_period or 0,
        "CpuQuota": limits.cpu_quota or 0,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "MemoryReservation": limits.memory_reservation or 0,
        "MemorySwap": swap if swap is not None else 2 * (limits.memory or 0),
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "PidsLimit": limits.pids,
    }


def _made(settings: ContainerSettings) -> JSON:
    """As `docker run` would have asked for what a page did."""
    host = settings.host
    bindings: JSON = {}
    for port in settings.ports:
        bindings.setdefault(f"{port.container_port}/{port.protocol}", []).append(
            {
                "HostIp": "" if port.host_ip == "0.0.0.0" else port.host_ip,
                "HostPort": str(port.host_port) if port.host_port else "",
            }
        )
    found: JSON = {
        "Binds": [_bind(m) for m in host.mounts if m.type == "bind" or m.name] or None,
        "NetworkMode": settings.network_mode,
        "PortBindings": bindings,
        "VolumesFrom": list(host.volumes_from) or None,
        "CapAdd": list(host.cap_add) or None,
        "CapDrop": list(host.cap_drop) or None,
        "CgroupnsMode": host.cgroupns_mode,
        "Dns": list(host.dns),
        "DnsOptions": list(host.dns_options),
        "DnsSearch": list(host.dns_search),
        "ExtraHosts": list(host.extra_hosts) or None,
        "GroupAdd": list(host.group_add) or None,
        "IpcMode": host.ipc_mode,
        "Links": list(host.links) or None,
        "OomScoreAdj": host.oom_score_adj,
        "PidMode": host.pid_mode,
        "Privileged": host.privileged,
        "PublishAllPorts": host.publish_all,
        "ReadonlyRootfs": host.read_only,
        "SecurityOpt": list(host.security_opt) or None,
        "UTSMode": host.uts_mode,
        "UsernsMode": host.userns_mode,
        "ShmSize": host.shm_size,
        "Runtime": host.runtime,
        "CgroupParent": host.cgroup_parent,
        "Devices": [
            {
                "PathOnHost": d.host,
                "PathInContainer": d.container,
                "CgroupPermissions": d.permissions,
            }
            for d in host.devices
        ],
        "DeviceCgroupRules": list(host.device_rules) or None,
        "Ulimits": [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in host.ulimits],
    }
    if host.tmpfs:
        found["Tmpfs"] = dict(host.tmpfs)
    if host.sysctls:
        found["Sysctls"] = dict(host.sysctls)
    if host.init is not None:
        found["Init"] = host.init
    return found


def _bind(mount: Mount) -> str:
    words = [*(["ro"] if mount.read_only else []), *mount.options]
    parts = [mount.source or mount.name, mount.destination, *([",".join(words)] if words else [])]
    return ":".join(parts)
