"""config.json of one container (OCI runtime-spec 1.0), with Docker's defaults.

What a container gets is decided here and nowhere else: capabilities, the seccomp profile, masked
and read-only paths, devices, namespaces of its own (security case 22). Leaves writing the file
to the callers, and asking whether a mount or a capability is allowed to the policy above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.errors import InvalidInput
from engine.runtime import capabilities, seccomp
from engine.runtime.resources import Limits, as_oci
from engine.runtime.rlimits import Ulimit, rlimits
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
_SAFE = ("nosuid", "noexec", "nodev")


@dataclass(frozen=True, slots=True)
class Mount:
    """One entry of `mounts`: by default a bind of `source` (a host path) onto `destination`."""

    source: str
    destination: str
    type: str = "bind"
    options: tuple[str, ...] = ("rbind", "rprivate")


@dataclass(frozen=True, slots=True)
class Device:
    """A node the container gets, `path` as it sees it; `access` of the letters rwm."""

    path: str
    type: Literal["b", "c"]
    major: int
    minor: int
    access: str = "rwm"
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What runs: the command, its environment (`NAME=value`) and the user it runs as.

    `size` (columns, rows) is a tty's own from its first moment on. `oom_score_adj` None is ours.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = field(default_factory=User)
    tty: bool = False
    size: tuple[int, int] | None = None
    capabilities: tuple[str, ...] = field(default_factory=capabilities.resolve)
    no_new_privileges: bool = False
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int | None = None
    apparmor: str = ""


def shm_mount(size: int = DEFAULT_SHM_BYTES) -> Mount:
    """/dev/shm of `size` bytes."""
    return Mount("shm", "/dev/shm", "tmpfs", (*_SAFE, "mode=1777", f"size={size}"))


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """`cgroup` is a path from the hierarchy's top; `hooks` go into config.json as they are.

    `joined` names namespaces (pid, network, ipc, uts) that are not the container's own: a file
    of the namespace to join, "" for the host's. `seccomp` None is the default profile, "" none.
    `shm` None leaves /dev/shm out. `device_rules` are more of resources.devices, `throttles` of
    resources.blockIO. `privileged` opens everything, all devices included.
    """

    process: ProcessSpec
    rootfs: Path
    cgroup: str
    hostname: str
    mounts: tuple[Mount, ...] = ()
    limits: Limits = field(default_factory=Limits)
    throttles: Mapping[str, Any] = field(default_factory=dict)
    readonly: bool = False
    privileged: bool = False
    private_cgroups: bool = False
    domainname: str = ""
    shm: Mount | None = field(default_factory=shm_mount)
    joined: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    device_rules: tuple[Mapping[str, Any], ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    seccomp: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
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
        "rlimits": rlimits(process.ulimits),
        "noNewPrivileges": process.no_new_privileges,
    }
    if process.oom_score_adj is not None:
        built["oomScoreAdj"] = process.oom_score_adj
    if process.apparmor:
        built["apparmorProfile"] = process.apparmor
    if process.tty and process.size is not None:
        columns, rows = process.size
        built["consoleSize"] = {"width": columns, "height": rows}
    return built


def build_spec(spec: ContainerSpec) -> dict[str, Any]:
    """The whole config.json. Raises InvalidInput, and RuntimeFailed without a seccomp profile."""
    linux: dict[str, Any] = {
        "cgroupsPath": spec.cgroup,
        "namespaces": _namespaces(spec),
        "resources": _resources(spec),
        "sysctl": _sysctls(spec),
        "maskedPaths": [] if spec.privileged else list(MASKED_PATHS),
        "readonlyPaths": [] if spec.privileged else list(READONLY_PATHS),
    }
    if spec.devices:
        linux["devices"] = [_device(device) for device in spec.devices]
    if not spec.privileged and spec.seccomp != "":
        linux["seccomp"] = (
            seccomp.default_profile(spec.process.capabilities)
            if spec.seccomp is None
            else seccomp.given_profile(spec.seccomp, spec.process.capabilities)
        )
    built: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": build_process(spec.process, privileged=spec.privileged),
        "root": {"path": str(spec.rootfs), "readonly": spec.readonly},
        "mounts": _mounts(spec),
        "linux": linux,
    }
    if "uts" not in spec.joined:
        built["hostname"] = spec.hostname
    if spec.annotations:
        built["annotations"] = dict(spec.annotations)
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


def _namespaces(spec: ContainerSpec) -> list[dict[str, str]]:
    built = []
    for kind in ("pid", "network", "ipc", "uts"):
        path = spec.joined.get(kind)
        if path is None:
            built.append({"type": kind})
        elif path:
            built.append({"type": kind, "path": path})
    built.append({"type": "mount"})
    if spec.private_cgroups:
        built.append({"type": "cgroup"})
    return built


def _sysctls(spec: ContainerSpec) -> dict[str, str]:
    built = {}
    if "network" not in spec.joined:
        # As Docker: ports below 1024 and ping need no privilege in a network of one's own.
        built["net.ipv4.ip_unprivileged_port_start"] = "0"
        built["net.ipv4.ping_group_range"] = "0 2147483647"
    if spec.domainname and "uts" not in spec.joined:
        built["kernel.domainname"] = spec.domainname
    return {**built, **spec.sysctls}


def _resources(spec: ContainerSpec) -> dict[str, Any]:
    rules: list[dict[str, Any]] = [{"allow": spec.privileged, "access": "rwm"}]
    if not spec.privileged:
        # mknod of anything, use of nothing but what the runtime allows by itself (null, tty, …).
        rules += [{"allow": True, "type": kind, "access": "m"} for kind in "cb"]
        rules += [
            {
                "allow": True,
                "type": device.type,
                "major": device.major,
                "minor": device.minor,
                "access": device.access,
            }
            for device in spec.devices
        ]
        rules += [dict(rule) for rule in spec.device_rules]
    limits = as_oci(spec.limits)
    if spec.throttles:
        limits["blockIO"] = {**limits.get("blockIO", {}), **spec.throttles}
    return {"devices": rules, **limits}


def _device(device: Device) -> dict[str, Any]:
    return {
        "path": device.path,
        "type": device.type,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    }


def _mounts(spec: ContainerSpec) -> list[dict[str, Any]]:
    access = "rw" if spec.privileged else "ro"
    built = [
        Mount("proc", "/proc", "proc", _SAFE),
        Mount("tmpfs", "/dev", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        Mount(
            "devpts",
            "/dev/pts",
            "devpts",
            ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        Mount("sysfs", "/sys", "sysfs", (*_SAFE, access)),
        Mount("cgroup", "/sys/fs/cgroup", "cgroup", (*_SAFE, "relatime", access)),
        Mount("mqueue", "/dev/mqueue", "mqueue", _SAFE),
    ]
    if spec.shm is not None:
        built.append(spec.shm)
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
