"""What happens on the machine when a container is created, started, stopped, killed, removed.

Every change of a container's state happens under its directory's lock and names the generation
it is about: an exit of an older start than the row's is ignored.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGKILL
from typing import Any

from django.db import transaction
from django.utils import timezone

from engine import publish
from engine.ceiling import Ceiling
from engine.containers import health, mounts, policy
from engine.containers.joined import other
from engine.containers.layout import ContainerDir
from engine.containers.lifecycle import Started
from engine.containers.readers import wait_read
from engine.containers.settings import ContainerSettings
from engine.errors import (
    Forbidden,
    InvalidInput,
    NotFound,
    QuaysideError,
    SupervisorLost,
    WrongState,
)
from engine.events import Kind
from engine.models import Container, Operation, Port
from engine.network.spec import PublishedPort
from engine.runtime import cgroups
from engine.runtime.signals import signal_number
from engine.services import addresses, namespaces, volumes
from engine.services.events import container_event
from engine.services.work import control, links, networks, restarts
from engine.services.work import volumes as volumes_work
from engine.services.work.host import host
from engine.services.work.leftovers import prune
from engine.services.work.networks import network_spec as network_spec

logger = logging.getLogger(__name__)
State = Container.State


def handle(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    """Run one container operation. Raises NotFound when the container went meanwhile."""
    kind = Operation.Kind(operation.kind)
    if kind == Operation.Kind.CONTAINER_PRUNE:
        return prune(operation, cancelled, lambda container: _remove(container, {}))
    try:
        container = _load(pk=int(operation.target), namespace=operation.namespace)
        return _HANDLERS[kind](container, operation.args)
    except (NotFound, WrongState) as error:
        if operation.attempt > 1 and isinstance(error, _DONE_BEFORE.get(kind, ())):
            return {}
        raise


def _load(**lookup: Any) -> Container:
    container = Container.objects.select_related("namespace", "image").filter(**lookup).first()
    if container is None:
        raise NotFound("the container has been removed meanwhile", kind="container")
    return container


def _create(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    with ContainerDir(host().config, container.uid).lock(), _told_on_row(container):
        _lay_out(container)
    return {}


def _check_others(container: Container, settings: ContainerSettings) -> None:
    """Namespaces are shared within the team: a row may name any id."""
    modes = (settings.network_mode, settings.host.pid_mode, settings.host.ipc_mode)
    for id in filter(None, map(other, modes)):
        if not Container.objects.filter(uid=id, namespace=container.namespace).exists():
            raise NotFound(f"no such container: {id}", kind="container", name=id)


@contextmanager
def _told_on_row(container: Container) -> Iterator[None]:
    """Why it failed shows with the container too, not only with the operation."""
    try:
        yield
    except QuaysideError as error:
        with transaction.atomic():
            Container.objects.filter(pk=container.pk).update(error=error.as_dict())
            publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)
        raise


def _lay_out(container: Container) -> None:
    """The policy once more, on the side root runs; then the folder and the writable layer."""
    settings = ContainerSettings.from_json(container.settings)
    if settings.id != container.uid:
        # The lock that is held is the row's, so must the folder be.
        raise InvalidInput(f"the settings of container {container.uid} are of {settings.id}")
    ceiling = Ceiling.load(host().config.home / "ceiling.json")
    policy.check(settings, ceiling)
    _check_others(container, settings)
    found = volumes.volumes_at(container)
    mounts.check(settings.host.mounts, found, ceiling)
    host().containers.create(links.told(container, settings), found)


def lay_out(container: Container) -> None:
    """For who needs its files before its first start. The caller holds the directory's lock."""
    _lay_out(_load(pk=container.pk))


def _start(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    size = (int(args["cols"]), int(args["rows"])) if "cols" in args else None
    cgroups.expect_moves()
    with ContainerDir(host().config, container.uid).lock():
        container = _load(pk=container.pk)
        if adopt(container):
            # An attempt before this one came this far and then lost its worker.
            return {"generation": container.generation}
        if container.is_running:
            _record_exit(container)
            container = _load(pk=container.pk)
        generation = _begin(container, size, restart_count=0, stopped_by_hand=False)
    links.follow(container)
    return {"generation": generation}


def _begin(container: Container, size: tuple[int, int] | None, **values: Any) -> int:
    """A start, with `values` for the row before it; its generation. The caller holds the lock."""
    with _told_on_row(container):
        links.check(container)
        _lay_out(container)
        host().containers.finish(container.uid, container.generation)
        generation = container.generation + 1
        Container.objects.filter(pk=container.pk).update(generation=generation, **values)
        try:
            started = host().containers.start(
                container.uid,
                generation,
                size,
                attachments=networks.attachments(container),
                volumes=volumes.volumes_at(container),
            )
        except QuaysideError:
            addresses.give_back(container)
            raise
    record_start(container, generation, started)
    return generation


def start_again(uid: str) -> None:
    """By its restart policy, if it still waits for that; what cannot be started stays down, and
    its row says why."""
    with ContainerDir(host().config, uid).lock():
        container = Container.objects.select_related("namespace", "image").filter(uid=uid).first()
        if container is None or container.state != State.RESTARTING:
            return
        if not restarts.wanted(container):
            _down(container)
        elif not adopt(container):
            try:
                _begin(container, None)
            except QuaysideError as error:
                logger.warning("restarting %s failed: %s", container.name, error)
                _down(container)


def _down(container: Container) -> None:
    with transaction.atomic():
        Container.objects.filter(pk=container.pk, state=State.RESTARTING).update(
            state=State.EXITED, restart_at=None
        )
        publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)


def adopt(container: Container) -> bool:
    """Whether it runs on the machine; a row that does not say so does afterwards: the starter was
    killed between the start and the row. The caller holds the directory's lock."""
    try:
        observed = host().containers.observe(container.uid)
    except NotFound:
        return False  # a row only, so far
    if not observed.running or observed.started is None:
        return False
    if not container.is_running or container.generation != observed.generation:
        record_start(container, observed.generation, observed.started)
        container.generation = observed.generation
    return True


def record_start(container: Container, generation: int, started: Started) -> None:
    """Write down that this start has come to run. The caller holds the directory's lock."""
    with transaction.atomic():
        Container.objects.filter(pk=container.pk).update(
            state=State.RUNNING,
            generation=generation,
            pid=started.init_pid,
            started_at=started.started_at,
            finished_at=None,
            exit_code=None,
            error=None,
            oom_killed=False,
            restart_at=None,
            health=health.begun(
                container.health, ContainerSettings.from_json(container.settings).healthcheck
            ),
        )
        ports = list(container.ports.all())
        for published in started.ports:
            row = next((row for row in ports if _asked_for(row, published)), None)
            if row is not None:
                ports.remove(row)
                Port.objects.filter(pk=row.pk).update(published_port=published.host_port)
        networks.joined(container)
        volumes_work.mounted(container)
        container_event(container, "start")
        publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)


def _asked_for(row: Port, published: PublishedPort) -> bool:
    return (row.container_port, row.protocol, row.host_ip) == (
        published.container_port,
        published.protocol,
        published.host_ip,
    ) and row.host_port in (0, published.host_port)


def _stop(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    if restarts.by_hand(container):
        _tell(container, "stop")
        return {}
    settings = ContainerSettings.from_json(container.settings)
    grace = float(args.get("grace", settings.stop_timeout))
    number = signal_number(str(args.get("signal") or settings.stop_signal))
    _tell(container, "kill", signal=str(number))
    host().containers.stop(
        container.uid,
        container.generation,
        number,
        grace if grace >= 0 else None,
        killing=lambda: _tell(container, "kill", signal=str(int(SIGKILL))),
    )
    record_exit(container.uid, container.generation)
    _tell(container, "stop")
    return {}


def _kill(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    number = signal_number(str(args.get("signal", "SIGKILL")))
    stops = ContainerSettings.from_json(container.settings).stop_signal
    # Any other signal may be one it lives on after: its end then is no wish of anybody's.
    ends = container.state == State.RESTARTING or number in (SIGKILL, signal_number(stops))
    if ends and restarts.by_hand(container):
        return {}
    if not container.is_running:
        raise WrongState(f"container {container.name} is not running", name=container.name)
    host().containers.signal(container.uid, container.generation, number)
    _tell(container, "kill", signal=str(number))
    return {}


def _restart(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    if container.is_running:
        _stop(container, args)
    result = _start(_load(pk=container.pk), args)
    _tell(container, "restart")
    return result


def _remove(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    with ContainerDir(host().config, container.uid).lock():
        container = _load(pk=container.pk)
        if container.state == State.RESTARTING and not args.get("force"):
            raise WrongState(
                f"container {container.name} is restarting",
                hint="stop it first, or remove it by force",
                name=container.name,
            )
        if container.is_running:
            if not args.get("force"):
                raise WrongState(
                    f"container {container.name} is running",
                    hint="stop it first, or remove it by force",
                    name=container.name,
                )
            host().containers.stop(container.uid, container.generation, signal_number("SIGKILL"), 0)
            _tell(container, "kill", signal=str(int(SIGKILL)))
            ended = host().containers.exit_of(container.uid, container.generation)
            _tell(container, "die", exitCode=str(ended.code if ended else 137))
        _remove_locked(container, volumes=bool(args.get("volumes")))
    return {}


def _remove_locked(container: Container, *, volumes: bool) -> None:
    """`volumes`: its anonymous ones, that no other container has, go too."""
    host().containers.finish(container.uid, container.generation)
    host().containers.remove(container.uid)
    key = container.pk
    with transaction.atomic():
        namespaces.lock(container.namespace)
        unused = volumes_work.anonymous_of(container) if volumes else []
        container_event(container, "destroy")
        container.delete()
        files = volumes_work.forget(unused)
        publish.changed(container.namespace_id, Kind.CONTAINER, key)
    volumes_work.remove_files(files)


def record_exit(uid: str, generation: int) -> None:
    """Write down that this start has ended, then clean up after it. Idempotent.

    The row comes first: whoever waits for the exit need not wait for the clean-up.
    """
    with ContainerDir(host().config, uid).lock():
        container = Container.objects.select_related("namespace").filter(uid=uid).first()
        if container is None or container.generation != generation:
            return
        _record_exit(container)


def _record_exit(container: Container) -> None:
    ended = host().containers.exit_of(container.uid, container.generation)
    code = ended.code if ended else 137
    finished_at = ended.finished_at if ended else timezone.now()
    with transaction.atomic():
        changed = Container.objects.filter(
            pk=container.pk,
            generation=container.generation,
            state__in=[State.RUNNING, State.PAUSED],
        ).update(
            **restarts.after_exit(container, code, finished_at),
            pid=None,
            exit_code=code,
            finished_at=finished_at,
            oom_killed=bool(ended and ended.oom),
            health=health.ended(container.health),
            error=None if ended else _lost(),
        )
        if changed:
            container.ports.update(published_port=None)
            if ended and ended.oom:
                container_event(container, "oom")
            container_event(container, "die", exitCode=str(code))
            networks.left(container)
            volumes_work.unmounted(container)
            publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)
    host().containers.finish(container.uid, container.generation)
    addresses.give_back(container)
    volumes_work.let_go(container)
    restarts.ring()
    # Not only if `changed`: engined may have been lost between the row and this.
    if container.settings.get("auto_remove") and container.generation and not _restarts(container):
        wait_read(host().config, container.uid)
        _remove_locked(container, volumes=True)


def _tell(container: Container, action: str, **more: str) -> None:
    """An event that changes no row; watchers of events hear of the container."""
    with transaction.atomic():
        container_event(container, action, **more)
        publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)


def _restarts(container: Container) -> bool:
    """Whether its end is the first half of a restart, after which `--rm` has to wait."""
    restarts = Operation.objects.open().filter(kind=Operation.Kind.CONTAINER_RESTART)
    return restarts.filter(target=str(container.pk)).exists()


def _lost() -> dict[str, Any]:
    return SupervisorLost(
        "the container's supervisor was lost, so the container was ended",
        hint="start it again",
    ).as_dict()


# How it shows that an earlier attempt had done it when its worker was lost.
_DONE_BEFORE: dict[Operation.Kind, type[QuaysideError] | tuple[type[QuaysideError], ...]] = {
    Operation.Kind.CONTAINER_STOP: NotFound,  # with --rm
    Operation.Kind.CONTAINER_KILL: (NotFound, WrongState),
    Operation.Kind.CONTAINER_REMOVE: NotFound,
    Operation.Kind.CONTAINER_DISCONNECT: Forbidden,
}

_HANDLERS: dict[Operation.Kind, Callable[[Container, dict[str, Any]], dict[str, Any]]] = {
    Operation.Kind.CONTAINER_CREATE: _create,
    Operation.Kind.CONTAINER_START: _start,
    Operation.Kind.CONTAINER_STOP: _stop,
    Operation.Kind.CONTAINER_KILL: _kill,
    Operation.Kind.CONTAINER_RESTART: _restart,
    Operation.Kind.CONTAINER_REMOVE: _remove,
    Operation.Kind.CONTAINER_PAUSE: control.pause,
    Operation.Kind.CONTAINER_UNPAUSE: control.unpause,
    Operation.Kind.CONTAINER_UPDATE: control.update,
    Operation.Kind.CONTAINER_CONNECT: networks.connect,
    Operation.Kind.CONTAINER_DISCONNECT: networks.disconnect,
}
