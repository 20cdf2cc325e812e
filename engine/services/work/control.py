"""Pausing, going on and new limits, on the machine: what changes a container and not its runs.

Each is done again without harm where its first worker was lost.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction

from engine import publish
from engine.ceiling import Ceiling
from engine.containers import policy
from engine.containers.layout import ContainerDir
from engine.containers.settings import ContainerSettings
from engine.errors import WrongState
from engine.events import Kind
from engine.models import Container
from engine.services.events import container_event
from engine.services.lookup import load
from engine.services.updates import changed
from engine.services.work import links
from engine.services.work.behind import begun
from engine.services.work.host import host

State = Container.State


def pause(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    """Raises WrongState when it does not run."""
    container = begun(container, args)
    with ContainerDir(host().config, container.uid).lock():
        container = _running(container)
        host().running.pause(container.uid, container.generation)
        _record(container, State.PAUSED, "pause")
    return {}


def unpause(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    """Raises WrongState when it does not run."""
    with ContainerDir(host().config, container.uid).lock():
        container = _running(container)
        host().running.unpause(container.uid, container.generation)
        _record(container, State.RUNNING, "unpause")
    return {}


def update(container: Container, args: dict[str, Any]) -> dict[str, Any]:
    """`args` as engine.services.containers.container_update writes them. Raises InvalidInput,
    PolicyDenied, RuntimeFailed."""
    with ContainerDir(host().config, container.uid).lock():
        container = load(pk=container.pk)
        before = ContainerSettings.from_json(container.settings)
        after = changed(before, args)
        policy.check(after, Ceiling.load(host().config.home / "ceiling.json"))
        host().running.update(
            links.told(container, after),
            before.host.limits,
            container.generation if container.is_running else None,
        )
        with transaction.atomic():
            Container.objects.filter(pk=container.pk).update(settings=after.to_json())
            container_event(container, "update")
            publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)
        if "unlink" in args and container.is_running:
            links.refresh(load(pk=container.pk))
    return {}


def _running(container: Container) -> Container:
    found = load(pk=container.pk)
    if not found.is_running:
        raise WrongState(f"container {found.name} is not running", name=found.name)
    return found


def _record(container: Container, state: Container.State, action: str) -> None:
    with transaction.atomic():
        done = Container.objects.filter(pk=container.pk).exclude(state=state).update(state=state)
        if done:
            container_event(container, action)
            publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)
