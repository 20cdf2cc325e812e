"""Containers as people ask for them: create, run, start, stop, kill, restart, remove, rename.

Everything here is rows and queued operations; what happens on the machine is in
`engine.services.work.containers`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from engine import publish
from engine.ceiling import Ceiling
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput, NameTaken, NotFound, WrongState
from engine.events import Kind
from engine.models import Container, Image, Namespace, Network, Operation, Port
from engine.network.spec import PortBinding
from engine.oci.digest import Digest, chain_id
from engine.runtime.signals import signal_number
from engine.services import images, namespaces, operations
from engine.services.names import random_name

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_HOSTNAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_ENV = re.compile(r"[^=\0]+(=[^\0]*)?", re.DOTALL)
Kinds = Operation.Kind


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """What `docker run` says. `env` is "K=V"; empty strings and tuples mean the image's own.

    `entrypoint` None keeps the image's, () clears it. `network` is "bridge" (the namespace's
    default network), a network's name, or "none"."""

    image: str
    name: str = ""
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    hostname: str = ""
    tty: bool = False
    open_stdin: bool = False
    ports: tuple[PortBinding, ...] = ()
    auto_remove: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    network: str = namespaces.DEFAULT_NETWORK
    stop_signal: str = ""


def find_container(namespace: Namespace, name_or_id: str) -> Container:
    """Raises NotFound; a beginning of an id that fits several containers is InvalidInput."""
    found = list(Container.objects.for_namespace(namespace).lookup(name_or_id)[:3])
    exact = [c for c in found if name_or_id in (c.name, c.uid)]
    if exact:
        return exact[0]
    if not found:
        raise NotFound(f"no such container: {name_or_id}", kind="container", name=name_or_id)
    if len(found) > 1:
        raise InvalidInput(
            f"several containers begin with {name_or_id}", hint="give more of the id", field="id"
        )
    return found[0]


def container_create(
    namespace: Namespace, request: ContainerRequest, actor: str
) -> tuple[Container, Operation]:
    """The row, its address and its ports, and an operation that lays out its folder.

    Raises InvalidInput (with `field`), NotFound (the image), NameTaken, PolicyDenied."""
    return _create(namespace, request, Kinds.CONTAINER_CREATE, actor)


def container_run(
    namespace: Namespace,
    request: ContainerRequest,
    actor: str,
    size: tuple[int, int] | None = None,
) -> tuple[Container, Operation]:
    """Create and start in one operation. `size`: columns and rows of the terminal, if any."""
    return _create(namespace, request, Kinds.CONTAINER_START, actor, **_size(size))


def container_start(
    container: Container, actor: str, size: tuple[int, int] | None = None
) -> Operation:
    """Raises WrongState when it runs already."""
    if container.is_running:
        raise WrongState(f"container {container.name} is running already", name=container.name)
    return _submit(Kinds.CONTAINER_START, container, actor, **_size(size))


def container_stop(container: Container, actor: str, grace: int | None = None) -> Operation:
    """The stop signal, `grace` seconds (default: the container's), then SIGKILL."""
    _must_run(container)
    return _submit(
        Kinds.CONTAINER_STOP, container, actor, **({"grace": grace} if grace is not None else {})
    )


def container_kill(container: Container, actor: str, signal: str = "SIGKILL") -> Operation:
    _must_run(container)
    _check_signal(signal, "signal")
    return _submit(Kinds.CONTAINER_KILL, container, actor, signal=signal)


def container_restart(
    container: Container, actor: str, size: tuple[int, int] | None = None
) -> Operation:
    """Stop if it runs, then start: the same container, the same writable layer."""
    return _submit(Kinds.CONTAINER_RESTART, container, actor, **_size(size))


def container_remove(container: Container, actor: str, force: bool = False) -> Operation:
    """Its writable layer and its log go with it. Raises WrongState while it runs, unless forced."""
    if container.is_running and not force:
        raise WrongState(
            f"container {container.name} is running",
            hint="stop it first, or remove it by force",
            name=container.name,
        )
    return _submit(Kinds.CONTAINER_REMOVE, container, actor, force=force)


def container_rename(container: Container, name: str, actor: str) -> None:
    """Raises InvalidInput or NameTaken."""
    _check_name(name)
    try:
        with transaction.atomic():
            Container.objects.filter(pk=container.pk).update(
                name=name, settings={**container.settings, "name": name}
            )
            publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)
    except IntegrityError as error:
        raise _name_taken(name) from error
    container.name = name


def _submit(kind: Operation.Kind, container: Container, actor: str, **args: Any) -> Operation:
    return operations.submit(
        kind,
        container.namespace,
        actor=actor,
        target=str(container.pk),
        # The name is for those who read what was done when the container is gone.
        args={"name": container.name, **args},
    )


def _size(size: tuple[int, int] | None) -> dict[str, Any]:
    return {"cols": size[0], "rows": size[1]} if size else {}


def _must_run(container: Container) -> None:
    if not container.is_running:
        raise WrongState(f"container {container.name} is not running", name=container.name)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"not a container name: {name}",
            hint="letters, digits, _ . and -, beginning with a letter or digit, at most 128",
            field="name",
        )


def _check_signal(text: str, field: str) -> None:
    try:
        signal_number(text)
    except InvalidInput as error:
        raise InvalidInput(error.message, hint=error.hint, field=field) from error


def _name_taken(name: str) -> NameTaken:
    return NameTaken(
        f"the name {name} is in use by another container",
        hint="choose another name, or remove or rename that container",
        field="name",
        name=name,
    )


def _create(
    namespace: Namespace, request: ContainerRequest, kind: Operation.Kind, actor: str, **args: Any
) -> tuple[Container, Operation]:
    """All checks, then the rows in one short transaction: an exit of another container waits for
    SQLite's one writer too. What changed between the two is refused by constraints."""
    planned = _plan(namespace, request)
    while True:
        try:
            with transaction.atomic():
                namespaces.lock(namespace)
                container = _insert(namespace, request, planned)
                return container, _submit(kind, container, actor, **args)
        except IntegrityError as error:
            planned = _planned_again(namespace, request, planned, error)


@dataclass(frozen=True, slots=True)
class _Plan:
    settings: ContainerSettings
    image: Image
    network: Network | None


def _plan(namespace: Namespace, request: ContainerRequest) -> _Plan:
    """Everything that can be wrong with a request, before anything is written."""
    image = images.find_image(namespace, request.image)
    if request.name:
        _check_name(request.name)
        if Container.objects.for_namespace(namespace).filter(name=request.name).exists():
            raise _name_taken(request.name)
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
    _check_signal(stop_signal, "stop_signal")
    uid = secrets.token_hex(32)
    network = _network(namespace, request.network)
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
        tty=request.tty,
        open_stdin=request.open_stdin,
        stdin_once=False,
        stop_signal=stop_signal,
        labels={**(config.get("Labels") or {}), **request.labels},
        auto_remove=request.auto_remove,
        exposed_ports=tuple(config.get("ExposedPorts") or ()),
        ports=request.ports,
        volumes=tuple(config.get("Volumes") or ()),
        networks=(network.name,) if network else (),
    )
    return _Plan(container_settings, image, network)


def _planned_again(
    namespace: Namespace, request: ContainerRequest, planned: _Plan, error: IntegrityError
) -> _Plan:
    """Somebody was faster. Raises what a check would have said of it; a plan with another name
    where nobody asked for this one."""
    name = planned.settings.name
    if not Container.objects.for_namespace(namespace).filter(name=name).exists():
        images.find_image(namespace, request.image)
        _network(namespace, request.network)
        raise error
    if request.name:
        raise _name_taken(name) from error
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
    if planned.network:
        namespaces.address_take(planned.network, container=container)
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


def _network(namespace: Namespace, name: str) -> Network | None:
    if name == "none":
        return None
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


def _free_name(namespace: Namespace) -> str:
    taken = set(Container.objects.for_namespace(namespace).values_list("name", flat=True))
    return random_name(taken)
