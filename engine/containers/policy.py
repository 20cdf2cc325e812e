"""A container's settings held against root's ceiling: the one place that decides (case 5).

Asked when a container is asked for, and by root's worker again before it is laid out. Paths are
compared as they are written; whoever opens them asks once more with what links make of them.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from engine.ceiling import Ceiling
from engine.containers.device_rules import DeviceRule, check_rule
from engine.containers.options import HostOptions
from engine.containers.security import security
from engine.containers.settings import ContainerSettings
from engine.runtime.capabilities import ALL, normalise


def check(settings: ContainerSettings, ceiling: Ceiling) -> None:
    """Raises PolicyDenied naming the key root would change."""
    host = settings.host
    ceiling.check_ports((binding.host_ip, binding.host_port) for binding in settings.ports)
    for mount in host.mounts:
        if mount.type == "bind":
            ceiling.check_bind(mount.source)
    if host.privileged:
        ceiling.check_privileged()
    for what, mode in (
        ("network", settings.network_mode),
        ("pid", host.pid_mode),
        ("ipc", host.ipc_mode),
        ("uts", host.uts_mode),
        ("cgroup", host.cgroupns_mode),
    ):
        ceiling.check(
            ceiling.host_namespaces or mode != "host",
            "host_namespaces",
            f"the host's {what} namespace may not be shared",
            namespace=what,
        )
    for device in host.devices:
        ceiling.check_device(device.host)
    for text in host.device_rules:
        check_rule(DeviceRule.parse(text), ceiling)
    _check_capabilities(host, ceiling)
    for name in host.sysctls:
        ceiling.check(
            any(fnmatchcase(name, pattern) for pattern in ceiling.sysctls),
            "sysctls",
            f"the sysctl {name} may not be set",
            sysctl=name,
        )
    ceiling.check(
        ceiling.seccomp_unconfined or security(host.security_opt).seccomp is None,
        "seccomp_unconfined",
        "containers without the default seccomp profile are not allowed",
    )
    ceiling.check(
        ceiling.privileged or host.oom_score_adj >= 0,
        "privileged",
        "an oom score below 0 is not allowed",
    )


def _check_capabilities(host: HostOptions, ceiling: Ceiling) -> None:
    if not host.cap_add or "ALL" in ceiling.capabilities:
        return
    for name in host.cap_add:
        wanted = ALL if name.upper() == "ALL" else (normalise(name),)
        for capability in wanted:
            ceiling.check(
                capability.removeprefix("CAP_") in ceiling.capabilities,
                "capabilities",
                f"the capability {capability.removeprefix('CAP_')} may not be added",
                field="cap_add",
                capability=capability,
            )
