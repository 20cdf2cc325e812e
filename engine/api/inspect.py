"""GET /containers/{id}/json: everything of one container in Docker's own shape."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web

from engine.api import execs
from engine.api.attached import mount_list, networks_shape, port_map
from engine.api.call import Call, Routes, reply
from engine.api.failures import failed_start
from engine.api.host_shape import host_shape
from engine.api.sizes_of import sizes_of
from engine.api.words import timestamp
from engine.containers.layout import ContainerDir
from engine.containers.settings import ContainerSettings
from engine.errors import QuaysideError
from engine.models import Container, Namespace
from engine.services import links
from engine.services.containers import find_container
from engine.services.orm import orm
from engine.services.volumes import uses_of
from engine.services.work.host import host

routes = Routes()
JSON = dict[str, Any]


@routes.get("/containers/{id}/json")
async def inspect(call: Call) -> web.Response:
    shape = await orm(inspected, call.namespace, call.path("id"), call.flag("size"))
    return reply(shape)


def inspected(namespace: Namespace, name: str, size: bool = False) -> JSON:
    """Raises NotFound, InvalidInput."""
    row = find_container(namespace, name.removeprefix("/"))
    settings = ContainerSettings.from_json(row.settings)
    directory = ContainerDir(host().config, row.uid)
    args = settings.args
    shape: JSON = {
        "Id": row.uid,
        "Created": timestamp(row.created_at),
        "Path": args[0] if args else "",
        "Args": list(args[1:]),
        "State": _state(row),
        "Image": settings.image,
        "ResolvConfPath": str(directory.etc / "resolv.conf"),
        "HostnamePath": str(directory.etc / "hostname"),
        "HostsPath": str(directory.etc / "hosts"),
        "LogPath": str(directory.log),
        "Name": f"/{row.name}",
        "RestartCount": row.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": execs.of_container(row.uid) or None,
        "HostConfig": {**host_shape(settings), "Links": _links(row, settings)},
        "GraphDriver": {"Name": "overlay2", "Data": _graph(row, settings, directory)},
        "Mounts": mount_list(row, uses_of(row)),
        "Config": _config(row, settings),
        "NetworkSettings": _network_settings(row),
    }
    if size:
        shape["SizeRw"], shape["SizeRootFs"] = sizes_of(row.uid, row.image.size if row.image else 0)
    return shape


def _links(row: Container, settings: ContainerSettings) -> list[str] | None:
    """moby's: `/target:/source/alias`, of those that are there."""
    found = links.targets(row, settings.host.links)
    return [f"/{target.name}:/{row.name}/{alias}" for alias, target in found] or None


def _state(row: Container) -> JSON:
    State = Container.State
    code, message = failed_start(row.error)
    shape: JSON = {
        "Status": row.state,
        "Running": row.state in (State.RUNNING, State.PAUSED, State.RESTARTING),
        "Paused": row.state == State.PAUSED,
        "Restarting": row.state == State.RESTARTING,
        "OOMKilled": row.oom_killed,
        "Dead": row.state == State.DEAD,
        "Pid": row.pid or 0,
        # 128 as moby has it of a start that failed before there was a program.
        "ExitCode": code or row.exit_code or (128 if row.error else 0),
        "Error": message,
        "StartedAt": timestamp(row.started_at),
        "FinishedAt": timestamp(row.finished_at),
    }
    if row.health and row.health.get("status"):
        shape["Health"] = {
            "Status": row.health["status"],
            "FailingStreak": row.health.get("failing_streak", 0),
            "Log": [
                {
                    "Start": one.get("start", ""),
                    "End": one.get("end", ""),
                    "ExitCode": one.get("exit_code", 0),
                    "Output": one.get("output", ""),
                }
                for one in row.health.get("log") or ()
            ],
        }
    return shape


def _graph(
    row: Container, settings: ContainerSettings, directory: ContainerDir
) -> Mapping[str, str]:
    """Where overlayfs has it; what is not laid out yet has its layers below only."""
    snapshots = host().snapshots
    values = {"MergedDir": str(directory.rootfs), "LowerDir": "", "UpperDir": "", "WorkDir": ""}
    with suppress(QuaysideError):
        if settings.chain:
            below = (snapshots.layer(settings.chain), *snapshots.lowers(settings.chain))
            values["LowerDir"] = ":".join(dict.fromkeys(map(str, below)))
        upper = snapshots.upper(directory.snapshot)
        values["UpperDir"] = str(upper)
        values["WorkDir"] = str(upper.parent / "work")
    return values


def _config(row: Container, settings: ContainerSettings) -> JSON:
    kept = settings.docker.get("Config")
    shape: JSON = {
        "Hostname": settings.hostname,
        "Domainname": settings.domainname,
        "User": settings.user,
        "AttachStdin": settings.attach_stdin,
        "AttachStdout": settings.attach_stdout,
        "AttachStderr": settings.attach_stderr,
        "Tty": settings.tty,
        "OpenStdin": settings.open_stdin,
        "StdinOnce": settings.stdin_once,
        "Env": list(settings.env),
        "Cmd": list(settings.cmd) or None,
        "Image": row.image_name,
        "Volumes": {path: {} for path in settings.volumes} or None,
        "WorkingDir": "" if settings.working_dir == "/" else settings.working_dir,
        "Entrypoint": list(settings.entrypoint) or None,
        "OnBuild": None,
        "Labels": dict(settings.labels),
        **(kept if isinstance(kept, Mapping) else {}),
    }
    if settings.exposed_ports:
        shape["ExposedPorts"] = {port: {} for port in settings.exposed_ports}
    if settings.healthcheck is not None:
        shape["Healthcheck"] = settings.healthcheck.to_dict()
    if settings.stop_signal != "SIGTERM":
        shape["StopSignal"] = settings.stop_signal
    if settings.stop_timeout != 10:
        shape["StopTimeout"] = settings.stop_timeout
    return shape


_FIRST = ("EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "MacAddress")


def _network_settings(row: Container) -> JSON:
    networks = networks_shape(row, row.endpoints.select_related("network").order_by("pk"))
    # Rows of what is asked for: none where nothing is.
    ports = port_map(row, row.ports.all() if row.settings.get("ports") else ())
    # The old keys are of the default network alone, as in moby.
    bridge = networks.get("bridge", {})
    first = {key: bridge.get(key, 0 if key == "IPPrefixLen" else "") for key in _FIRST}
    running = row.is_running
    return {
        "Bridge": "",
        "SandboxID": row.uid if running else "",
        "SandboxKey": f"/proc/{row.pid}/ns/net" if running and row.pid else "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": ports,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPv6Gateway": "",
        **first,
        "Networks": networks,
    }
