"""config.json of one container (OCI runtime-spec 1.0), with Docker's defaults.

What a container gets is decided here and nowhere else: capabilities, the seccomp profile, masked
and read-only paths, devices, namespaces of its own (security case 22). Leaves writing the file
to the callers, and asking whether a mount or a capability is allowed to the policy above.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import InvalidInput
from engine.runtime import capabilities, seccomp
from engine.runtime.users import User

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM_BYTES = 64 * 1024 * 1024

# moby oci/defaults.go
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
# As containerd's units: programs that need more raise their own soft limit.
_NOFILE = (1024, 524288)


@dataclass(frozen=True, slots=True)
class Mount:
    """One entry of `mounts`: by default a bind of `source` (a host path) onto `destination`."""

    source: str
    destination: str
    type: str = "bind"
    options: tuple[str, ...] = ("rbind", "rprivate")


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits; None is unlimited. `memory` in bytes, `cpus` in processors."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What runs: the command, its environment (`NAME=value`) and the user it runs as.

    `size` (columns, rows) is a tty's own from its first moment on.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = field(default_factory=User)
    tty: bool = False
    size: tuple[int, int] | None = None
    capabilities: tuple[str, ...] = field(default_factory=capabilities.resolve)
    no_new_privileges: bool = False


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """`cgroup` is a path from the hierarchy's top; `hooks` go into config.json as they are."""

    process: ProcessSpec
    rootfs: Path
    cgroup: str
    hostname: str
    mounts: tuple[Mount, ...] = ()
    resources: Resources = field(default_factory=Resources)
    readonly: bool = False
    privileged: bool = False
    private_cgroups: bool = False
    shm_bytes: int = DEFAULT_SHM_BYTES
    hooks: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)


def build_process(process: ProcessSpec, *, privileged: bool = False) -> dict[str, Any]:
    """The `process` object, in config.json as in the file `runc exec --process` takes.

    Raises InvalidInput for a command or an environment no kernel would take.
    """
    _check(process)
    held = list(process.capabilities)
    # execve(2) drops them for another user than root; moby leaves them out likewise.
    root = process.user.uid == 0 or privileged
    built = {
        "terminal": process.tty,
        "user": {
            "uid": process.user.uid,
            "gid": process.user.gid,
            "additionalGids": list(process.user.groups),
        },
        "args": list(process.args),
        "env": list(process.env),
        "cwd": process.cwd,
        "capabilities": {
            "bounding": held,
            "effective": held if root else [],
            "permitted": held if root else [],
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": [_rlimit("RLIMIT_NOFILE", resource.RLIMIT_NOFILE, *_NOFILE)],
        "noNewPrivileges": process.no_new_privileges,
    }
    if process.tty and process.size is not None:
        columns, rows = process.size
        built["consoleSize"] = {"width": columns, "height": rows}
    return built


def build_spec(spec: ContainerSpec) -> dict[str, Any]:
    """The whole config.json. Raises InvalidInput, and RuntimeFailed without a seccomp profile."""
    linux: dict[str, Any] = {
        "cgroupsPath": spec.cgroup,
        "namespaces": [{"type": kind} for kind in _namespaces(spec)],
        "resources": _resources(spec),
        "sysctl": {
            # As Docker: ports below 1024 and ping need no privilege in a network of one's own.
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": "0 2147483647",
        },
        "maskedPaths": [] if spec.privileged else list(MASKED_PATHS),
        "readonlyPaths": [] if spec.privileged else list(READONLY_PATHS),
    }
    if not spec.privileged:
        linux["seccomp"] = seccomp.default_profile(spec.process.capabilities)
    built: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": build_process(spec.process, privileged=spec.privileged),
        "root": {"path": str(spec.rootfs), "readonly": spec.readonly},
        "hostname": spec.hostname,
        "mounts": _mounts(spec),
        "linux": linux,
    }
    if spec.hooks:
        built["hooks"] = dict(spec.hooks)
    return built


def environment(
    image: tuple[str, ...], *, user: User, tty: bool = False, hostname: str = ""
) -> tuple[str, ...]:
    """Docker's order: PATH, HOSTNAME and TERM first, the image's and the run's own over them.

    HOME is the user's unless given. Later entries of a name win; an entry without `=` takes the
    name away. Pure.
    """
    values = {"PATH": DEFAULT_PATH}
    if hostname:
        values["HOSTNAME"] = hostname
    if tty:
        values["TERM"] = "xterm"
    for entry in image:
        name, separator, value = entry.partition("=")
        if separator:
            values[name] = value
        else:
            values.pop(name, None)
    values.setdefault("HOME", user.home)
    return tuple(f"{name}={value}" for name, value in values.items())


def _check(process: ProcessSpec) -> None:
    if not process.args or not process.args[0]:
        raise InvalidInput(
            "no command: neither the image nor the request names one",
            hint="give a command, or set CMD or ENTRYPOINT in the Dockerfile",
            field="cmd",
        )
    for text in (*process.args, *process.env, process.cwd):
        if "\0" in text:
            raise InvalidInput(f"a zero byte in {text!r}", hint="leave it out", field="cmd")
    if not process.cwd.startswith("/"):
        raise InvalidInput(
            f"the working directory is not absolute: {process.cwd}",
            hint="begin it with /",
            field="working_dir",
        )


def _namespaces(spec: ContainerSpec) -> tuple[str, ...]:
    own = ("pid", "network", "ipc", "uts", "mount")
    return (*own, "cgroup") if spec.private_cgroups else own


def _rlimit(name: str, which: int, soft: int, hard: int) -> dict[str, Any]:
    """Never above our own hard limit: raising it would take CAP_SYS_RESOURCE."""
    ours = resource.getrlimit(which)[1]
    if ours != resource.RLIM_INFINITY:
        soft, hard = min(soft, ours), min(hard, ours)
    return {"type": name, "soft": soft, "hard": hard}


def _resources(spec: ContainerSpec) -> dict[str, Any]:
    limits = spec.resources
    built: dict[str, Any] = {
        "devices": [{"allow": spec.privileged, "access": "rwm"}]
        # mknod of anything, use of nothing but what the runtime allows by itself (null, tty, …).
        + [{"allow": True, "type": kind, "access": "m"} for kind in "cb" if not spec.privileged]
    }
    if limits.memory is not None:
        # swap counts memory and swap together: equal means no swap.
        built["memory"] = {"limit": limits.memory, "swap": limits.memory}
    if limits.cpus is not None:
        built["cpu"] = {"quota": int(limits.cpus * 100_000), "period": 100_000}
    if limits.pids is not None:
        built["pids"] = {"limit": limits.pids}
    return built


def _mounts(spec: ContainerSpec) -> list[dict[str, Any]]:
    access = "rw" if spec.privileged else "ro"
    safe = ["nosuid", "noexec", "nodev"]
    built = [
        Mount("proc", "/proc", "proc", tuple(safe)),
        Mount("tmpfs", "/dev", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        Mount(
            "devpts",
            "/dev/pts",
            "devpts",
            ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        Mount("sysfs", "/sys", "sysfs", (*safe, access)),
        Mount("cgroup", "/sys/fs/cgroup", "cgroup", (*safe, "relatime", access)),
        Mount("mqueue", "/dev/mqueue", "mqueue", tuple(safe)),
        Mount("shm", "/dev/shm", "tmpfs", (*safe, "mode=1777", f"size={spec.shm_bytes}")),
    ]
    # Parents before what lies in them, and ours before the caller's (moby sorts the same way).
    extra = sorted(spec.mounts, key=lambda mount: mount.destination.rstrip("/").count("/"))
    return [
        {
            "destination": mount.destination,
            "type": mount.type,
            "source": mount.source,
            "options": list(mount.options),
        }
        for mount in (*built, *extra)
    ]
