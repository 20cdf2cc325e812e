"""What `docker run` can ask of the host for one container: Docker's HostConfig, in our words.

Values only, as they were asked for; unset is None, "" or empty. `engine.containers.checks` says
what is wrong with them, `engine.ceiling` what root forbids, `engine.containers.config` what they
become for the runtime. Sizes are bytes, times seconds unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.runtime.resources import Limits
from engine.runtime.rlimits import Ulimit

__all__ = [
    "Device",
    "EndpointSettings",
    "HostOptions",
    "Limits",
    "LogConfig",
    "Mount",
    "RestartPolicy",
    "Throttle",
    "Ulimit",
]

MountType = Literal["bind", "volume", "tmpfs"]
ThrottleKind = Literal["read_bps", "write_bps", "read_iops", "write_iops", "weight"]
RestartName = Literal["no", "always", "unless-stopped", "on-failure"]


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """`max_retries` 0 is without end; it means something with on-failure alone."""

    name: RestartName = "no"
    max_retries: int = 0


@dataclass(frozen=True, slots=True)
class LogConfig:
    """`driver` json-file, local or none; `options` as given (max-size, max-file)."""

    driver: str = "json-file"
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the host's; `permissions` of the letters rwm."""

    host: str
    container: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class Throttle:
    """At most `value` bytes or operations a second from or to the host's device `path`, 0 without
    end; of `weight`, its share from 10 to 1000."""

    kind: ThrottleKind
    path: str
    value: int


@dataclass(frozen=True, slots=True)
class Mount:
    """One of `-v` or `--mount`.

    bind: `source` is the host's path; `create` makes the folder where it is missing (`-v` does,
    `--mount` does not). volume: `name` is the volume's ("" an anonymous one), `source` is not
    used; `no_copy` leaves it empty where the image has files. tmpfs: `options` are mount words
    (`size=65536`, `mode=1777`). `options` of a bind or volume: further words as given (z, nosuid).
    `propagation` is rprivate where "". `driver_options` and `labels` make a volume that is new.
    """

    type: MountType
    destination: str
    source: str = ""
    name: str = ""
    read_only: bool = False
    propagation: str = ""
    options: tuple[str, ...] = ()
    no_copy: bool = False
    create: bool = False
    recursive: bool = True
    driver_options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Wishes for one network: further names, a fixed address, a MAC address.

    `links` are `NAME:ALIAS`, others of the network by a name that only this container has for them.
    `link_local` are further addresses of 169.254.0.0/16. `driver_options` are kept and shown: no
    driver of ours reads any.
    """

    aliases: tuple[str, ...] = ()
    ipv4: str = ""
    mac: str = ""
    links: tuple[str, ...] = ()
    link_local: tuple[str, ...] = ()
    driver_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HostOptions:
    """Texts are as Docker's API has them.

    `shm_size` 0 is 64 MiB. `security_opt`: no-new-privileges[:true], seccomp=unconfined,
    seccomp=JSON, apparmor=…, label=…. `tmpfs` is {container path: mount words, by commas}.
    `extra_hosts` are `name:address`. `links` are of containers on the default network: `name:alias`
    as asked for, `ID:alias` in settings. `device_rules` are of the devices cgroup: `c 7:* rmw`.
    Modes are "", private, host, shareable, none or container:NAME, where a mode knows them. `init`
    None is no.
    """

    limits: Limits = field(default_factory=Limits)
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    log: LogConfig = field(default_factory=LogConfig)
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    privileged: bool = False
    read_only: bool = False
    init: bool | None = None
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    device_rules: tuple[str, ...] = ()
    throttles: tuple[Throttle, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    extra_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    ipc_mode: str = ""
    pid_mode: str = ""
    uts_mode: str = ""
    cgroupns_mode: str = ""
    userns_mode: str = ""
    cgroup_parent: str = ""
    links: tuple[str, ...] = ()
    oom_score_adj: int = 0
    runtime: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    publish_all: bool = False
