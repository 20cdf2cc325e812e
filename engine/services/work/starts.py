"""A container's start on row and machine: policy, files, the start itself, what is written of it.

Also one by its restart policy, and one that a killed worker had made and not written down.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import transaction

from engine import publish
from engine.ceiling import Ceiling
from engine.containers import health, mounts, policy
from engine.containers.attempts import Started
from engine.containers.joined import other
from engine.containers.layout import ContainerDir
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput, NotFound, QuaysideError
from engine.events import Kind
from engine.models import Container, Endpoint, Port, VolumeUse
from engine.network.spec import PublishedPort
from engine.services import addresses, volumes
from engine.services.events import container_event
from engine.services.work import links, networks, restarts
from engine.services.work import volumes as volumes_work
from engine.services.work.host import host

logger = logging.getLogger(__name__)
State = Container.State


@contextmanager
def told_on_row(container: Container) -> Iterator[None]:
    """Why it failed shows with the container too, not only with the operation."""
    try:
        yield
    except QuaysideError as error:
        with transaction.atomic():
            Container.objects.filter(pk=container.pk).update(error=error.as_dict())
            publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)
        raise


def lay_out(container: Container) -> list[VolumeUse]:
    """The policy once more, on the side root runs; then the folder and the writable layer. Gives
    its volumes, for what comes after.

    The caller holds the directory's lock. Raises PolicyDenied, InvalidInput, NotFound, NoSpace.
    """
    settings = ContainerSettings.from_json(container.settings)
    if settings.id != container.uid:
        # The lock that is held is the row's, so must the folder be.
        raise InvalidInput(f"the settings of container {container.uid} are of {settings.id}")
    ceiling = Ceiling.load(host().config.home / "ceiling.json")
    policy.check(settings, ceiling)
    _check_others(container, settings)
    uses = volumes.uses_of(container)
    found = volumes.volumes_at(uses)
    mounts.check(settings.host.mounts, found, ceiling)
    host().containers.create(links.told(container, settings), found)
    return uses


def _check_others(container: Container, settings: ContainerSettings) -> None:
    """Namespaces are shared within the team: a row may name any id."""
    modes = (settings.network_mode, settings.host.pid_mode, settings.host.ipc_mode)
    for id in filter(None, map(other, modes)):
        if not Container.objects.filter(uid=id, namespace=container.namespace).exists():
            raise NotFound(f"no such container: {id}", kind="container", name=id)


def begin(container: Container, size: tuple[int, int] | None, **values: Any) -> int:
    """A start, with `values` for the row before it; its generation. The caller holds the lock."""
    with told_on_row(container):
        links.check(container)
        uses = lay_out(container)
        host().containers.finish(container.uid, container.generation)
        generation = container.generation + 1
        Container.objects.filter(pk=container.pk).update(generation=generation, **values)
        try:
            places = networks.places(container)
            started = host().containers.start(
                container.uid,
                generation,
                size,
                attachments=networks.attachments(container, places),
                volumes=volumes.volumes_at(uses),
            )
        except QuaysideError:
            addresses.give_back(container)
            raise
    record_start(container, generation, started, places, uses)
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
                begin(container, None)
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
        places, uses = networks.on(container), volumes.uses_of(container)
        record_start(container, observed.generation, observed.started, places, uses)
        container.generation = observed.generation
    return True


def record_start(
    container: Container,
    generation: int,
    started: Started,
    places: Iterable[Endpoint],
    uses: Iterable[VolumeUse],
) -> None:
    """Write down that this start has come to run, on these networks and with these volumes. The
    caller holds the directory's lock."""
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
        ports = list(container.ports.all()) if started.ports else []
        for published in started.ports:
            row = next((row for row in ports if _asked_for(row, published)), None)
            if row is not None:
                ports.remove(row)
                Port.objects.filter(pk=row.pk).update(published_port=published.host_port)
        networks.joined(container, places)
        volumes_work.mounted(container, uses)
        container_event(container, "start")
        publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)


def _asked_for(row: Port, published: PublishedPort) -> bool:
    return (row.container_port, row.protocol, row.host_ip) == (
        published.container_port,
        published.protocol,
        published.host_ip,
    ) and row.host_port in (0, published.host_port)
