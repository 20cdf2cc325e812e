"""Containers as people ask for them: create, run, start, stop, kill, restart, remove, rename.

Everything here is rows and queued operations; what happens on the machine is in
`engine.services.work.containers`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from engine import publish
from engine.ceiling import Ceiling
from engine.containers import policy
from engine.containers.options import Limits, RestartPolicy
from engine.containers.settings import ContainerSettings
from engine.errors import WrongState
from engine.events import Kind
from engine.models import Container, Namespace, Operation
from engine.services import creation, operations, updates
from engine.services.events import container_event
from engine.services.labels import match as match_labels
from engine.services.lookup import find_container as find_container
from engine.services.requests import ContainerRequest as ContainerRequest

Kinds = Operation.Kind


def container_create(
    namespace: Namespace, request: ContainerRequest, actor: str
) -> tuple[Container, Operation]:
    """The row, its places on networks and its ports, and an operation that lays out its folder.

    Raises InvalidInput (with `field`), NotFound (the image), NameTaken, PolicyDenied."""
    return creation.create(
        namespace, request, lambda made: _submit(Kinds.CONTAINER_CREATE, made, actor)
    )


def container_new(namespace: Namespace, request: ContainerRequest, actor: str) -> Container:
    """The rows alone: its first start, or whoever needs its files before, lays out the folder.

    Raises as `container_create` does."""
    return creation.create(namespace, request, lambda made: made)[0]


def container_run(
    namespace: Namespace,
    request: ContainerRequest,
    actor: str,
    size: tuple[int, int] | None = None,
) -> tuple[Container, Operation]:
    """Create and start in one operation. `size`: columns and rows of the terminal, if any."""
    return creation.create(
        namespace,
        request,
        lambda made: _submit(Kinds.CONTAINER_START, made, actor, **_size(size)),
    )


def container_start(
    container: Container, actor: str, size: tuple[int, int] | None = None
) -> Operation:
    """Raises WrongState when it runs already."""
    if container.is_up:
        raise WrongState(f"container {container.name} is running already", name=container.name)
    return _submit(Kinds.CONTAINER_START, container, actor, **_size(size))


def container_starting(container: Container) -> Operation | None:
    """A start of it that is on its way, which ends with its row saying how it ended."""
    kinds = (Kinds.CONTAINER_START, Kinds.CONTAINER_RESTART)
    return Operation.objects.open().filter(target=str(container.pk), kind__in=kinds).last()


def container_stop(
    container: Container, actor: str, grace: int | None = None, signal: str = ""
) -> Operation:
    """`signal` and `grace` seconds (default: the container's; -1 is for ever), then SIGKILL. One
    that waits to be restarted is not restarted; one that is being started is stopped once it runs.
    Raises WrongState."""
    return _submit(
        Kinds.CONTAINER_STOP, container, actor, **_behind(container), **_ending(grace, signal)
    )


def container_kill(container: Container, actor: str, signal: str = "SIGKILL") -> Operation:
    """One that is being started hears it once it runs. Raises WrongState, InvalidInput."""
    behind = _behind(container)
    creation.check_signal(signal, "signal")
    return _submit(Kinds.CONTAINER_KILL, container, actor, signal=signal, **behind)


def container_restart(
    container: Container,
    actor: str,
    size: tuple[int, int] | None = None,
    grace: int | None = None,
    signal: str = "",
) -> Operation:
    """Stop if it runs, as container_stop does, then start: the same container and layer."""
    return _submit(
        Kinds.CONTAINER_RESTART, container, actor, **_size(size), **_ending(grace, signal)
    )


def container_pause(container: Container, actor: str) -> Operation:
    """All its processes stand still until it is unpaused. Raises WrongState."""
    behind = _behind(container)
    if not behind and not container.is_running:
        raise WrongState(f"container {container.name} is not running", name=container.name)
    if container.state == Container.State.PAUSED:
        raise WrongState(f"Container {container.name} is already paused", name=container.name)
    return _submit(Kinds.CONTAINER_PAUSE, container, actor, **behind)


def container_unpause(container: Container, actor: str) -> Operation:
    """Raises WrongState when it is not paused."""
    if container.state != Container.State.PAUSED:
        raise WrongState(f"Container {container.name} is not paused", name=container.name)
    return _submit(Kinds.CONTAINER_UNPAUSE, container, actor)


def container_update(
    container: Container,
    actor: str,
    *,
    limits: Limits | None = None,
    restart: RestartPolicy | None = None,
) -> Operation:
    """`limits` are all it has from then on (engine.runtime.resources.merged: as `docker update`
    means them); None leaves them. Raises InvalidInput, PolicyDenied."""
    args = updates.arguments(limits, restart)
    after = updates.changed(ContainerSettings.from_json(container.settings), args)
    policy.check(after, Ceiling.load(settings.ENGINE.home / "ceiling.json"))
    return _submit(Kinds.CONTAINER_UPDATE, container, actor, **args)


def container_remove(
    container: Container, actor: str, force: bool = False, *, volumes: bool = False
) -> Operation:
    """Its writable layer and its log go with it, with `volumes` its anonymous volumes too. Raises
    WrongState while it runs, unless forced."""
    if container.is_up and not force:
        raise WrongState(
            f"container {container.name} is {container.state}",
            hint="stop it first, or remove it by force",
            name=container.name,
        )
    return _submit(Kinds.CONTAINER_REMOVE, container, actor, force=force, volumes=volumes)


def containers_prune(
    namespace: Namespace,
    actor: str,
    *,
    until: datetime | None = None,
    label: Iterable[str] = (),
    label_not: Iterable[str] = (),
) -> Operation:
    """Remove what does not run: made before `until`, with all of `label` and none of `label_not`
    (`key` or `key=value`). Its result: {"containers": [ids], "bytes": int}."""
    return operations.submit(
        Kinds.CONTAINER_PRUNE,
        namespace,
        actor=actor,
        args={
            "until": until.isoformat() if until else "",
            "label": list(label),
            "label_not": list(label_not),
        },
    )


def prunable(
    namespace: Namespace,
    *,
    until: datetime | None = None,
    label: Iterable[str] = (),
    label_not: Iterable[str] = (),
) -> list[Container]:
    """What `containers_prune` would remove now."""
    State = Container.State
    found = Container.objects.for_namespace(namespace).filter(
        state__in=[State.CREATED, State.EXITED, State.DEAD]
    )
    if until is not None:
        found = found.filter(created_at__lte=until)
    return [
        container
        for container in found.select_related("namespace").order_by("-created_at")
        if match_labels(container.settings.get("labels", {}), label, label_not)
    ]


def container_rename(container: Container, name: str, actor: str) -> None:
    """Raises InvalidInput or NameTaken."""
    creation.check_name(name)
    try:
        with transaction.atomic():
            Container.objects.filter(pk=container.pk).update(
                name=name, settings={**container.settings, "name": name}
            )
            before, container.name = container.name, name
            container_event(container, "rename", oldName=f"/{before}")
            publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)
    except IntegrityError as error:
        raise creation.name_taken(name) from error


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


def _ending(grace: int | None, signal: str) -> dict[str, Any]:
    if signal:
        creation.check_signal(signal, "signal")
    return {
        **({"signal": signal} if signal else {}),
        **({"grace": grace} if grace is not None else {}),
    }


def _behind(container: Container) -> dict[str, int]:
    """For what only a running one can be asked: the start on its way that it has to wait for, in
    the worker (engine.services.work.behind); {} where it is up. Raises WrongState."""
    if container.is_up:
        return {}
    if start := container_starting(container):
        return {"behind": start.pk}
    # It may have come to run since the caller's look.
    now = Container.objects.filter(pk=container.pk).first()
    if now is None or not now.is_up:
        raise WrongState(f"container {container.name} is not running", name=container.name)
    container.state = now.state
    return {}
