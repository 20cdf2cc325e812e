"""A new container: what is asked for, all that can be wrong with it, and its rows.

What becomes of it on the machine is in `engine.services.work.containers`; what is done with it
afterwards in `engine.services.containers`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from django.conf import settings
from django.db import IntegrityError, transaction

from engine import publish
from engine.ceiling import Ceiling
from engine.containers import checks, policy
from engine.containers.options import EndpointSettings
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput, NameTaken
from engine.events import Kind
from engine.models import Container, Image, Namespace, Network, Port
from engine.oci.digest import Digest, chain_id
from engine.runtime.signals import signal_number
from engine.services import addresses, images, links, namespaces, networks, requests, volumes
from engine.services.events import container_event
from engine.services.lookup import find_container
from engine.services.names import random_name
from engine.services.requests import ContainerRequest

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_STOP_SECONDS = 10
_T = TypeVar("_T")


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
    networks: tuple[tuple[Network, EndpointSettings | None], ...]


def _plan(namespace: Namespace, request: ContainerRequest) -> _Plan:
    """Everything that can be wrong with a request, before anything is written."""
    image = images.find_image(namespace, request.image)
    if request.name:
        check_name(request.name)
        if Container.objects.for_namespace(namespace).filter(name=request.name).exists():
            raise name_taken(request.name)
    name = request.name or _free_name(namespace)
    requests.check_texts(request)
    requests.check_conflicts(request)
    asked = [(p.host_ip, p.host_port, p.protocol) for p in request.ports if p.host_port]
    if len(set(asked)) != len(asked):
        raise InvalidInput("a host port is given twice", hint="publish it once", field="ports")
    config = image.config.get("config") or {}
    stop_signal = request.stop_signal or config.get("StopSignal") or "SIGTERM"
    check_signal(stop_signal, "stop_signal")
    uid = secrets.token_hex(32)
    request = _with_others(namespace, request)
    request = replace(request, host=replace(request.host, links=links.resolved(namespace, request)))
    joined = _networks(namespace, request)
    exposed = requests.together(config.get("ExposedPorts"), request.exposed_ports)
    entrypoint, command = requests.process(config, request)
    container_settings = ContainerSettings(
        id=uid,
        name=name,
        image=image.digest,
        chain=str(chain_id([Digest.parse(layer["diff_id"]) for layer in image.layers]))
        if image.layers
        else "",
        entrypoint=entrypoint,
        cmd=command,
        env=requests.environment(config, request.env),
        working_dir=request.working_dir or config.get("WorkingDir") or "/",
        user=request.user or config.get("User") or "",
        hostname=requests.hostname(request, uid),
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
        exposed_ports=exposed,
        ports=requests.ports(request, exposed),
        volumes=requests.together(config.get("Volumes"), request.volumes),
        network_mode=request.network,
        networks=tuple(network.name for network, _ in joined),
        endpoints=request.endpoints,
        healthcheck=requests.healthcheck(config.get("Healthcheck"), request.healthcheck),
        host=volumes.plan(
            namespace,
            requests.adapted(request.host),
            requests.together(config.get("Volumes"), request.volumes),
        ),
        docker=request.docker,
    )
    checks.check(container_settings)
    policy.check(container_settings, Ceiling.load(settings.ENGINE.home / "ceiling.json"))
    return _Plan(container_settings, image, joined)


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
    for network, wishes in planned.networks:
        addresses.take(network, container=container, wishes=wishes)
    volumes.take(container, planned.settings)
    Port.objects.bulk_create(
        Port(
            container=container,
            container_port=binding.container_port,
            protocol=binding.protocol,
            host_ip=binding.host_ip,
            host_port=binding.host_port,
        )
        for binding in planned.settings.ports
    )
    container_event(container, "create")
    publish.changed(namespace.pk, Kind.CONTAINER, container.pk)
    return container


def _with_others(namespace: Namespace, request: ContainerRequest) -> ContainerRequest:
    """`container:NAME` becomes `container:ID`: the name may be another's tomorrow. Only the
    namespace's own containers can be meant; with a network comes its host name. Raises NotFound."""

    def fixed(mode: str) -> str:
        kind, _, name = mode.partition(":")
        return f"container:{find_container(namespace, name).uid}" if kind == "container" else mode

    host = request.host
    if not any(
        mode.startswith("container:") for mode in (request.network, host.pid_mode, host.ipc_mode)
    ):
        return request
    name = request.hostname
    if request.network.startswith("container:"):
        shared = find_container(namespace, request.network.partition(":")[2])
        name = str(shared.settings.get("hostname", ""))
    return replace(
        request,
        hostname=name,
        network=fixed(request.network),
        host=replace(host, pid_mode=fixed(host.pid_mode), ipc_mode=fixed(host.ipc_mode)),
    )


def _networks(
    namespace: Namespace, request: ContainerRequest
) -> tuple[tuple[Network, EndpointSettings | None], ...]:
    """The mode's own first, then those of `endpoints`, each with what is wished for there."""
    if request.network in ("none", "host") or request.network.startswith("container:"):
        return ()
    first = "bridge" if request.network == "default" else request.network
    found: dict[int, tuple[Network, EndpointSettings | None]] = {}
    known: dict[str, Network] = {}
    for name in (first, *request.endpoints):
        full = "bridge" if name == "default" else name
        network = known.get(full) or networks.find_network(namespace, full)
        known[full] = network
        wishes = request.endpoints.get(name) or found.get(network.pk, (network, None))[1]
        if wishes is not None:
            addresses.check(network, wishes)
        found[network.pk] = (network, wishes)
    return tuple(found.values())


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
