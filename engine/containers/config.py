"""From a container's settings to what the runtime is told: config.json of a start, and the
process of an exec.

Leaves mounts of volumes and folders to engine.containers.mounts, and whether root allows it all
to engine.containers.policy, which is asked before.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.ceiling import Ceiling
from engine.config import EngineConfig
from engine.containers import throttles
from engine.containers.device_rules import DeviceRule, check_rule
from engine.containers.devices import all_devices, devices
from engine.containers.etc import mounts_of, write_etc
from engine.containers.joined import Joined
from engine.containers.layout import ContainerDir
from engine.containers.security import security
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput, RuntimeFailed
from engine.network.spec import Attachment
from engine.runtime import capabilities
from engine.runtime.cgroups import hierarchies
from engine.runtime.oci_runtime import ENVIRONMENT
from engine.runtime.resources import fitting
from engine.runtime.rootfs import lookup, opened
from engine.runtime.spec import ContainerSpec, Device, Mount, ProcessSpec, environment
from engine.runtime.users import User

INIT = "/sbin/docker-init"


def process_spec(
    settings: ContainerSettings,
    user: User,
    args: Sequence[str],
    *,
    env: Sequence[str] = (),
    cwd: str = "",
    tty: bool = False,
    size: tuple[int, int] | None = None,
    privileged: bool = False,
) -> ProcessSpec:
    """The container's first process or an exec's: rights and limits are the same. `env` comes on
    top of the container's own. Raises InvalidInput."""
    host = settings.host
    secure = security(host.security_opt)
    hostname = settings.hostname or settings.id[:12]
    return ProcessSpec(
        args=tuple(args),
        env=environment((*settings.env, *env), user=user, tty=tty, hostname=hostname),
        cwd=cwd or settings.working_dir or "/",
        user=user,
        tty=tty,
        size=size,
        capabilities=capabilities.resolve(
            host.cap_add, host.cap_drop, privileged=privileged or host.privileged
        ),
        no_new_privileges=secure.no_new_privileges,
        ulimits=host.ulimits,
        oom_score_adj=_oom_score(host.oom_score_adj),
        apparmor="" if privileged or host.privileged else secure.apparmor,
    )


def container_spec(
    config: EngineConfig,
    settings: ContainerSettings,
    directory: ContainerDir,
    process: ProcessSpec,
    *,
    cgroup: str,
    attachments: Sequence[Attachment],
    mounted: Sequence[Mount],
    joined: Joined,
) -> ContainerSpec:
    """Also writes the files of /etc. Raises InvalidInput, PolicyDenied, RuntimeFailed."""
    _check_folder(settings.working_dir, directory)
    host = settings.host
    private = host.cgroupns_mode == "private" or (
        # As Docker: a namespace of their own on v2, the host's (read-only) on v1.
        not host.cgroupns_mode and hierarchies().pure_v2 and not host.privileged
    )
    return ContainerSpec(
        process=process,
        rootfs=directory.rootfs,
        cgroup=cgroup,
        hostname=settings.hostname or settings.id[:12],
        domainname=settings.domainname,
        mounts=(*_etc(settings, directory, attachments, joined), *_init(settings), *mounted),
        limits=fitting(host.limits)[0],
        throttles=throttles.as_oci(host.throttles),
        readonly=host.read_only,
        privileged=host.privileged,
        private_cgroups=private,
        shm=joined.shm,
        joined=joined.namespaces,
        devices=_devices(config, settings),
        device_rules=_device_rules(config, settings),
        sysctls=host.sysctls,
        seccomp=security(host.security_opt).seccomp,
        annotations=host.annotations,
    )


def _etc(
    settings: ContainerSettings,
    directory: ContainerDir,
    attachments: Sequence[Attachment],
    joined: Joined,
) -> tuple[Mount, ...]:
    if joined.network_of is not None:
        return mounts_of(joined.network_of.etc, read_only=settings.host.read_only)
    return write_etc(
        directory.etc,
        settings.hostname or settings.id[:12],
        attachments,
        settings.host,
        domainname=settings.domainname,
        host_network=joined.host_network,
    )


def command(settings: ContainerSettings) -> tuple[str, ...]:
    """What is executed: the command, under an init where one is asked for."""
    return (INIT, "--", *settings.args) if settings.host.init else settings.args


def _init(settings: ContainerSettings) -> tuple[Mount, ...]:
    if not settings.host.init:
        return ()
    found = shutil.which("tini-static", path=ENVIRONMENT["PATH"])
    if found is None:
        raise RuntimeFailed("there is no init for containers", hint="install Debian's tini")
    return (Mount(found, INIT, options=("bind", "ro")),)


def _devices(config: EngineConfig, settings: ContainerSettings) -> tuple[Device, ...]:
    if settings.host.privileged:
        return all_devices()
    if not settings.host.devices:
        return ()
    return devices(settings.host.devices, Ceiling.load(config.home / "ceiling.json"))


def _device_rules(config: EngineConfig, settings: ContainerSettings) -> tuple[dict[str, Any], ...]:
    rules = [DeviceRule.parse(text) for text in settings.host.device_rules]
    if rules:
        ceiling = Ceiling.load(config.home / "ceiling.json")
        for rule in rules:
            check_rule(rule, ceiling)
    return tuple(rule.as_oci() for rule in rules)


def _oom_score(asked: int) -> int | None:
    """Below our own only with CAP_SYS_RESOURCE (proc_pid_oom_score_adj(5))."""
    if not asked:
        return None
    if "CAP_SYS_RESOURCE" in capabilities.bounding():
        return asked
    return max(asked, int(Path(f"/proc/{os.getpid()}/oom_score_adj").read_text()))


def _check_folder(path: str, directory: ContainerDir) -> None:
    """The runtime makes a working directory that is missing, but not in place of a file."""
    with opened(directory.rootfs) as root:
        found = lookup(root, path or "/")
    if found is not None and not stat.S_ISDIR(found.st_mode):
        raise InvalidInput(
            f"the working directory {path} is no folder in the image",
            hint="choose a folder",
            field="working_dir",
            path=path,
        )
