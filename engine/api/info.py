"""GET /info: the machine and the engine as `docker info` tells of them."""

from __future__ import annotations

import os
import platform
import subprocess
import uuid
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web
from django.db.models import Count
from django.utils import timezone

from engine.api.call import Call, Routes, reply
from engine.api.system import VERSION
from engine.api.words import timestamp
from engine.config import EngineConfig
from engine.containers.stats import machine_memory
from engine.models import Container, Image, Namespace
from engine.runtime.cgroups import hierarchies
from engine.runtime.resources import support
from engine.services.orm import orm
from engine.services.work.host import host

routes = Routes()
JSON = dict[str, Any]
_INDEX = "https://index.docker.io/v1/"


@routes.get("/info")
async def info(call: Call) -> web.Response:
    return reply(await orm(_info, call.config, call.namespace))


def _info(config: EngineConfig, namespace: Namespace) -> JSON:
    release = _os_release()
    limits = support()
    runtime = host().runtime.binary
    return {
        "ID": str(uuid.uuid5(uuid.NAMESPACE_URL, config.home.as_uri())),
        **_counts(namespace),
        "Driver": "overlay2",
        "DriverStatus": [
            ["Backing Filesystem", _file_system(config.snapshots_dir)],
            ["Supports d_type", "true"],
            ["Using metacopy", "false"],
            ["Native Overlay Diff", "true"],
            ["userxattr", "false"],
        ],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": ["json-file", "local", "none"],
        },
        "MemoryLimit": limits.memory,
        "SwapLimit": limits.swap,
        "KernelMemoryTCP": False,
        "CpuCfsPeriod": limits.cpu_cfs,
        "CpuCfsQuota": limits.cpu_cfs,
        "CPUShares": limits.cpu_shares,
        "CPUSet": limits.cpuset,
        "PidsLimit": limits.pids,
        "OomKillDisable": limits.oom_kill_disable,
        # Switched on with the first network that has a way out.
        "IPv4Forwarding": True,
        "BridgeNfIptables": True,
        "BridgeNfIp6tables": True,
        "Debug": False,
        "NFd": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "NGoroutines": 0,
        "NEventsListener": 0,
        "SystemTime": timestamp(timezone.now()),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if hierarchies().pure_v2 else "1",
        "KernelVersion": os.uname().release,
        "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
        "OSVersion": release.get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "IndexServerAddress": _INDEX,
        "RegistryConfig": _registries(config),
        "NCPU": os.cpu_count() or 1,
        "MemTotal": machine_memory(),
        "GenericResources": None,
        "DockerRootDir": str(config.home),
        **_proxies(),
        "Name": os.uname().nodename,
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": VERSION,
        "Runtimes": {runtime.name: {"path": str(runtime)}},
        "DefaultRuntime": runtime.name,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "docker-init",
        "ContainerdCommit": {"ID": "", "Expected": ""},
        "RuncCommit": {"ID": _version(str(runtime)), "Expected": _version(str(runtime))},
        "InitCommit": {"ID": "", "Expected": ""},
        "SecurityOptions": [
            "name=seccomp,profile=builtin",
            *(["name=cgroupns"] if hierarchies().pure_v2 else []),
        ],
        "DefaultAddressPools": [{"Base": str(config.address_pool), "Size": 24}],
        "CDISpecDirs": [],
        "Warnings": [],
    }


def _counts(namespace: Namespace) -> JSON:
    State = Container.State
    rows = Container.objects.for_namespace(namespace).order_by()
    by_state = {row["state"]: row["n"] for row in rows.values("state").annotate(n=Count("pk"))}
    running = by_state.get(State.RUNNING, 0) + by_state.get(State.RESTARTING, 0)
    paused = by_state.get(State.PAUSED, 0)
    total = sum(by_state.values())
    return {
        "Containers": total,
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": total - running - paused,
        "Images": Image.objects.for_namespace(namespace).count(),
    }


def _registries(config: EngineConfig) -> JSON:
    mirrors = list(config.mirrors.get("docker.io", ()))
    hub = {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}
    others = {
        name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
        for name in sorted(config.insecure_registries)
    }
    return {
        "AllowNondistributableArtifactsCIDRs": [],
        "AllowNondistributableArtifactsHostnames": [],
        "InsecureRegistryCIDRs": ["127.0.0.0/8"],
        "IndexConfigs": {"docker.io": hub, **others},
        "Mirrors": mirrors,
    }


def _proxies() -> JSON:
    return {
        shown: os.environ.get(name, os.environ.get(name.lower(), ""))
        for shown, name in (
            ("HttpProxy", "HTTP_PROXY"),
            ("HttpsProxy", "HTTPS_PROXY"),
            ("NoProxy", "NO_PROXY"),
        )
    }


@cache
def _os_release() -> dict[str, str]:
    try:
        text = Path("/etc/os-release").read_text()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    return {name: value.strip("\"'") for name, value in pairs}


def _file_system(folder: Path) -> str:
    """The type of what `folder` lies on, by the longest mount point above it."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        where = fields.split(" ")[4]
        if folder.is_relative_to(where) and len(where) >= len(best):
            best, kind = where, tail.split(" ")[0]
    return "extfs" if kind in ("ext2", "ext3", "ext4") else kind


@cache
def _version(runtime: str) -> str:
    """`1.1.5+ds1`, as `runc --version` says first."""
    try:
        done = subprocess.run(
            [runtime, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    first = done.stdout.splitlines()[:1]
    return first[0].rpartition(" ")[2] if first else ""
