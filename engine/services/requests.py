"""What `docker run` says, and what it means together with the image: no rows, no machine."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.containers.options import EndpointSettings, HostOptions
from engine.errors import InvalidInput
from engine.network.spec import PortBinding
from engine.oci import Healthcheck
from engine.services import namespaces

_HOSTNAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_ENV = re.compile(r"[^=\0]+(=[^\0]*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """What `docker run` says. `env` is "K=V"; empty strings and tuples mean the image's own.

    `entrypoint` None keeps the image's, () clears it. `network` is Docker's NetworkMode: "bridge"
    or "default" (the namespace's default network), a network's name, "none", "host" or
    "container:NAME"; `endpoints` wishes by network's name, whose networks are joined too.
    `volumes` and `exposed_ports` (`80/tcp`) are added to the image's. `healthcheck` None is the
    image's; what is unset in it comes from the image's. `stop_timeout` None is 10 seconds, -1 for
    ever. `host` is the HostConfig; `docker` what Docker's inspect is to give back as it came."""

    image: str
    name: str = ""
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    ports: tuple[PortBinding, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    auto_remove: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    network: str = namespaces.DEFAULT_NETWORK
    endpoints: Mapping[str, EndpointSettings] = field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None
    healthcheck: Healthcheck | None = None
    host: HostOptions = field(default_factory=HostOptions)
    docker: Mapping[str, object] = field(default_factory=dict)


def check_texts(request: ContainerRequest) -> None:
    """Raises InvalidInput with its field."""
    for entry in request.env:
        if not _ENV.fullmatch(entry):
            raise InvalidInput(
                f"not an environment entry: {entry}", hint="write it KEY=value", field="env"
            )
    for name, words in (
        ("command", request.command),
        ("entrypoint", request.entrypoint or ()),
        ("working_dir", (request.working_dir,)),
        ("user", (request.user,)),
    ):
        if any("\0" in word for word in words):
            raise InvalidInput(f"a zero byte in the {name}", hint="take it out", field=name)
    if request.working_dir and not request.working_dir.startswith("/"):
        raise InvalidInput(
            f"the working directory is not absolute: {request.working_dir}",
            hint="write the whole path, beginning with /",
            field="working_dir",
        )
    if request.hostname and not _HOSTNAME.fullmatch(request.hostname):
        raise InvalidInput(
            f"not a host name: {request.hostname}",
            hint="letters, digits, _ . and -, beginning with a letter or digit, at most 64",
            field="hostname",
        )


def check_conflicts(request: ContainerRequest) -> None:
    """runconfig/hostconfig_unix.go, of what the request alone can tell."""
    mode = request.network
    for given, text in (
        (request.hostname and mode.startswith("container:"), "hostname and the network mode"),
        (request.hostname and request.host.uts_mode == "host", "hostname and the UTS mode"),
    ):
        if given:
            raise InvalidInput(f"conflicting options: {text}", field="hostname")


def adapted(host: HostOptions) -> HostOptions:
    """moby daemon adaptContainerSettings: as much swap again as memory where nobody said."""
    limits = host.limits
    if not limits.memory or limits.memory_swap:
        return host
    return replace(host, limits=replace(limits, memory_swap=2 * limits.memory))


def hostname(request: ContainerRequest, uid: str) -> str:
    """Docker's: the short id, or the host's own where that is shared."""
    if request.hostname:
        return request.hostname
    if request.network == "host" or request.host.uts_mode == "host":
        return socket.gethostname()
    return uid[:12]


def ports(request: ContainerRequest, exposed: tuple[str, ...]) -> tuple[PortBinding, ...]:
    """Those asked for, and with `publish_all` a free one for each exposed that has none. Raises
    InvalidInput where there is no network of its own to publish from."""
    if request.network in ("host", "none"):
        if request.ports:
            raise InvalidInput(
                "ports cannot be published without a network",
                hint="choose the bridge network or leave the ports out",
                field="ports",
            )
        return ()
    if not request.host.publish_all:
        return request.ports
    bound = {(port.container_port, port.protocol) for port in request.ports}
    found = list(request.ports)
    for text in exposed:
        number, _, protocol = text.partition("/")
        if number.isdigit() and (int(number), protocol or "tcp") not in bound:
            if protocol in ("", "tcp"):
                found.append(PortBinding(int(number)))
            elif protocol == "udp":
                found.append(PortBinding(int(number), "udp"))
    return tuple(found)


def process(
    config: Mapping[str, Any], request: ContainerRequest
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(entrypoint, command); setting the entrypoint resets the image's command, as Docker does."""
    if request.entrypoint is not None:
        entrypoint, command = request.entrypoint, request.command
    else:
        entrypoint = tuple(config.get("Entrypoint") or ())
        command = request.command or tuple(config.get("Cmd") or ())
    if not entrypoint and not command:
        raise InvalidInput(
            "no command: the image names none and none was given",
            hint="write a command, or give the Dockerfile a CMD",
            field="command",
        )
    return entrypoint, command


def environment(config: Mapping[str, Any], extra: tuple[str, ...]) -> tuple[str, ...]:
    """The request's, then those of the image it does not name (moby daemon/commit.go). A bare KEY
    stays as it is: it takes the image's away, and what runs has no such variable."""
    asked = {entry.partition("=")[0]: entry for entry in extra}
    image = {entry.partition("=")[0]: entry for entry in config.get("Env") or ()}
    return tuple({**asked, **image, **asked}.values())


def together(image: object, asked: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*(image if isinstance(image, dict) else ()), *asked)))


def healthcheck(image: Any, asked: Healthcheck | None) -> Healthcheck | None:
    """moby daemon/commit.go merge: what the request leaves unset is the image's."""
    inherited = Healthcheck.from_json(image) if image else None
    if asked is None or inherited is None:
        found = asked or inherited
    else:
        found = replace(
            inherited,
            test=asked.test or inherited.test,
            interval=asked.interval or inherited.interval,
            timeout=asked.timeout or inherited.timeout,
            start_period=asked.start_period or inherited.start_period,
            start_interval=asked.start_interval or inherited.start_interval,
            retries=asked.retries or inherited.retries,
        )
    return found
