"""What happens on the machine when a container is created, started, stopped, killed, removed: one
handler an operation. What a start and an end are made of is in `starts` and `exits`.

Every change of a container's state happens under its directory's lock and names the generation
it is about: an exit of an older start than the row's is ignored.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from signal import SIGKILL
from typing import Any

from django.db import transaction

from engine import publish
from engine.containers.layout import ContainerDir
from engine.containers.settings import ContainerSettings
from engine.errors import (
    Forbidden,
    NotFound,
    QuaysideError,
    WrongState,
)
from engine.events import Kind
from engine.models import Container, Operation
from engine.runtime import cgroups
from engine.runtime.signals import signal_number
from engine.services.events import container_event
from engine.services.lookup import load
from engine.services.work import control, links, networks, restarts
from engine.services.work.behind import begun
from engine.services.work.exits import record_exit, record_locked, remove_locked
from engine.services.work.host import host
from engine.services.work.leftovers import prune
from engine.services.work.starts import adopt, begin, lay_out, told_on_row

logger = logging.getLogger(__name__)
State = Container.State


def handle(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    """Run one container operation. Raises NotFound when the container went meanwhile."""
    kind = Operation.Kind(operation.kind)
    if kind == Operation.Kind.CONTAINER_PRUNE:
        return prune(operation, cancelled, lambda container: _remove(container, {}))
    try:
        container = load(pk=int(operation.target), namespace=operation.namespace)
        return _HANDLERS[kind](container, operation.args)
    except (NotFound, WrongState) as error:
        if operation.attempt > 1 and isinstance(error, _DONE_BEFORE.get(kind, ())):
            return {}
        raise


def _create(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    with ContainerDir(host().config, container.uid).lock(), told_on_row(container):
        lay_out(container)
    return {}


def _start(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    size = (int(args["cols"]), int(args["rows"])) if "cols" in args else None
    cgroups.expect_moves()
    with ContainerDir(host().config, container.uid).lock():
        container = load(pk=container.pk)
        if adopt(container):
            # An attempt before this one came this far and then lost its worker.
            return {"generation": container.generation}
        if container.is_running:
            record_locked(container)
            container = load(pk=container.pk)
        generation = begin(container, size, restart_count=0, stopped_by_hand=False)
    links.follow(container)
    return {"generation": generation}


def _stop(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    container = begun(container, args)
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
    container = begun(container, args)
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
    result = _start(load(pk=container.pk), args)
    _tell(container, "restart")
    return result


def _remove(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    with ContainerDir(host().config, container.uid).lock():
        container = load(pk=container.pk)
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
        remove_locked(container, volumes=bool(args.get("volumes")))
    return {}


def _tell(container: Container, action: str, **more: str) -> None:
    """An event that changes no row; watchers of events hear of the container."""
    with transaction.atomic():
        container_event(container, action, **more)
        publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)


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
