"""A new container: what is asked for, all that can be wrong with it, and its rows.

What becomes of it on the machine is in `engine.services.work.containers`; what is done with it
afterwards in `engine.services.containers`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from django.conf import settings
from django.db import IntegrityError, transaction

from engine import publish
from engine.ceiling import Ceiling
from engine.containers.options import EndpointSettings, HostOptions
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput, NameTaken, NotFound
from engine.events import Kind
from engine.models import Container, Image, Namespace, Network, Port
from engine.network.spec import PortBinding
from engine.oci import Healthcheck
from engine.oci.digest import Digest, chain_id
from engine.runtime.signals import signal_number
from engine.services import images, namespaces
from engine.services.events import container_event
from engine.services.names import random_name

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_HOSTNAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_ENV = re.compile(r"[^=\0]+(=[^\0]*)?", re.DOTALL)
_STOP_SECONDS = 10
_T = TypeVar("_T")


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


def create(
    namespace: Namespace, request: ContainerRequest, then: Callable[[Container], _T]
) -> tuple[Container, _T]:
    """All checks, then the rows in one short transaction, and what `then` does in it: an exit of
    another container waits for SQLite's one writer too. What changed between the two is refused
    by constraints. Raises InvalidInput (with `field`), NotFound, NameTaken, PolicyDenied,
    Unsupported."""
    planned = _plan(namespace, request)
    while True:
        try:
            with transaction.atomic():
                namespaces.lock(namespace)
                container = _insert(namespace, request, planned)
                return container, then(container)
        except IntegrityError as error:
            planned = _planned_again(namespace, request, planned, error)


@dataclass(frozen=True, slots=True)
class _Plan:
    settings: ContainerSettings
    image: Image
    networks: tuple[Network, ...]


def _plan(namespace: Namespace, request: ContainerRequest) -> _Plan:
    """Everything that can be wrong with a request, before anything is written."""
    image = images.find_image(namespace, request.image)
    if request.name:
        check_name(request.name)
        if Container.objects.for_namespace(namespace).filter(name=request.name).exists():
            raise name_taken(request.name)
    name = request.name or _free_name(namespace)
    _check_texts(request)
    if request.ports and request.network == "none":
        raise InvalidInput(
            "ports cannot be published without a network",
            hint="choose the bridge network or leave the ports out",
            field="ports",
        )
    Ceiling.load(settings.ENGINE.home / "ceiling.json").check_ports(
        (binding.host_ip, binding.host_port) for binding in request.ports
    )
    asked = [(p.host_ip, p.host_port, p.protocol) for p in request.ports if p.host_port]
    if len(set(asked)) != len(asked):
        raise InvalidInput("a host port is given twice", hint="publish it once", field="ports")
    config = image.config.get("config") or {}
    stop_signal = request.stop_signal or config.get("StopSignal") or "SIGTERM"
    check_signal(stop_signal, "stop_signal")
    uid = secrets.token_hex(32)
    networks = _networks(namespace, request)
    entrypoint, command = _process(config, request)
    container_settings = ContainerSettings(
        id=uid,
        name=name,
        image=image.digest,
        chain=str(chain_id([Digest.parse(layer["diff_id"]) for layer in image.layers]))
        if image.layers
        else "",
        entrypoint=entrypoint,
        cmd=command,
        env=_environment(config, request.env),
        working_dir=request.working_dir or config.get("WorkingDir") or "/",
        user=request.user or config.get("User") or "",
        hostname=request.hostname or uid[:12],
        domainname=request.domainname,
        tty=request.tty,
        open_stdin=request.open_stdin,
        stdin_once=request.stdin_once,
        attach_stdin=request.attach_stdin,
        attach_stdout=request.attach_stdout,
        attach_stderr=request.attach_stderr,
        stop_signal=stop_signal,
        stop_timeout=_STOP_SECONDS if request.stop_timeout is None else request.stop_timeout,
        labels={**(config.get("Labels") or {}), **request.labels},
        auto_remove=request.auto_remove,
        exposed_ports=_together(config.get("ExposedPorts"), request.exposed_ports),
        ports=request.ports,
        volumes=_together(config.get("Volumes"), request.volumes),
        network_mode=request.network,
        networks=tuple(network.name for network in networks),
        endpoints=request.endpoints,
        healthcheck=_healthcheck(config.get("Healthcheck"), request.healthcheck),
        host=request.host,
        docker=request.docker,
    )
    return _Plan(container_settings, image, networks)


def _planned_again(
    namespace: Namespace, request: ContainerRequest, planned: _Plan, error: IntegrityError
) -> _Plan:
    """Somebody was faster. Raises what a check would have said of it; a plan with another name
    where nobody asked for this one."""
    name = planned.settings.name
    if not Container.objects.for_namespace(namespace).filter(name=name).exists():
        images.find_image(namespace, request.image)
        _networks(namespace, request)
        raise error
    if request.name:
        raise name_taken(name) from error
    return replace(planned, settings=replace(planned.settings, name=_free_name(namespace)))


def _insert(namespace: Namespace, request: ContainerRequest, planned: _Plan) -> Container:
    container = Container.objects.create(
        uid=planned.settings.id,
        namespace=namespace,
        node=namespaces.node_local(),
        name=planned.settings.name,
        image=planned.image,
        image_name=request.image,
        settings=planned.settings.to_json(),
    )
    for network in planned.networks:
        _endpoint(network, container, request.endpoints.get(network.name))
    Port.objects.bulk_create(
        Port(
            container=container,
            container_port=binding.container_port,
            protocol=binding.protocol,
            host_ip=binding.host_ip,
            host_port=binding.host_port,
        )
        for binding in request.ports
    )
    container_event(container, "create")
    publish.changed(namespace.pk, Kind.CONTAINER, container.pk)
    return container


def _check_texts(request: ContainerRequest) -> None:
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


def _process(
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


def _environment(config: Mapping[str, Any], extra: tuple[str, ...]) -> tuple[str, ...]:
    """The image's, overridden by the request's; a bare KEY takes the variable away."""
    values = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
    for entry in extra:
        key, separator, value = entry.partition("=")
        if separator:
            values[key] = value
        else:
            values.pop(key, None)
    return tuple(f"{key}={value}" for key, value in values.items())


def _together(image: object, asked: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*(image if isinstance(image, dict) else ()), *asked)))


def _healthcheck(image: Any, asked: Healthcheck | None) -> Healthcheck | None:
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


def _networks(namespace: Namespace, request: ContainerRequest) -> tuple[Network, ...]:
    """The mode's own first, then those of `endpoints`."""
    if request.network in ("none", "host") or request.network.startswith("container:"):
        return ()
    first = "bridge" if request.network == "default" else request.network
    names = dict.fromkeys((first, *request.endpoints))
    return tuple(_network(namespace, name) for name in names if name != "default")


def _network(namespace: Namespace, name: str) -> Network:
    if name == namespaces.DEFAULT_NETWORK:
        return namespaces.network_default(namespace)
    found = Network.objects.filter(namespace=namespace, name=name).first()
    if found is None:
        raise NotFound(
            f"no such network: {name}",
            hint="choose bridge, none or a network of this team",
            kind="network",
            name=name,
            field="network",
        )
    return found


def _endpoint(network: Network, container: Container, wishes: EndpointSettings | None) -> None:
    endpoint = namespaces.address_take(network, container=container)
    if wishes is not None and wishes.aliases:
        endpoint.names = list(wishes.aliases)
        endpoint.save(update_fields=["names"])


def _free_name(namespace: Namespace) -> str:
    taken = set(Container.objects.for_namespace(namespace).values_list("name", flat=True))
    return random_name(taken)


def check_name(name: str) -> None:
    """Raises InvalidInput."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"not a container name: {name}",
            hint="letters, digits, _ . and -, beginning with a letter or digit, at most 128",
            field="name",
        )


def check_signal(text: str, field: str) -> None:
    """Raises InvalidInput naming `field`."""
    try:
        signal_number(text)
    except InvalidInput as error:
        raise InvalidInput(error.message, hint=error.hint, field=field) from error


def name_taken(name: str) -> NameTaken:
    """What to raise."""
    return NameTaken(
        f"the name {name} is in use by another container",
        hint="choose another name, or remove or rename that container",
        field="name",
        name=name,
    )
