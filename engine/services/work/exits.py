"""A container's end on row and machine: what is written of it, the clean-up, its removal."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from engine import publish
from engine.containers import health
from engine.containers.attempts import LOST_CODE, Exit
from engine.containers.layout import ContainerDir
from engine.containers.readers import wait_read
from engine.errors import SupervisorLost
from engine.events import Kind
from engine.models import Container, Operation
from engine.services import addresses, namespaces
from engine.services.events import container_event
from engine.services.work import networks, restarts
from engine.services.work import volumes as volumes_work
from engine.services.work.host import host

State = Container.State


def record_exit(uid: str, generation: int) -> None:
    """Write down that this start has ended, then clean up after it. Idempotent.

    The row comes first: whoever waits for the exit need not wait for the clean-up.
    """
    with ContainerDir(host().config, uid).lock():
        container = Container.objects.select_related("namespace").filter(uid=uid).first()
        if container is None or container.generation != generation:
            return
        record_locked(container)


def record_locked(container: Container) -> None:
    """`record_exit` of the row's own start. The caller holds the directory's lock."""
    ended = host().containers.exit_of(container.uid, container.generation)
    _write(container, ended)
    host().containers.finish(container.uid, container.generation)
    # Not only where this has changed the row: engined may have been lost since that was written.
    removes = (
        container.settings.get("auto_remove") and container.generation and not _restarts(container)
    )
    volumes_work.let_go(container)
    if removes:
        wait_read(host().config, container.uid)
        remove_locked(container, volumes=True)
    else:
        addresses.give_back(container)


def _write(container: Container, ended: Exit | None) -> None:
    code = ended.code if ended else LOST_CODE
    finished_at = ended.finished_at if ended else timezone.now()
    after = restarts.after_exit(container, code, finished_at)
    with transaction.atomic():
        changed = Container.objects.filter(
            pk=container.pk,
            generation=container.generation,
            state__in=[State.RUNNING, State.PAUSED],
        ).update(
            **after,
            pid=None,
            exit_code=code,
            finished_at=finished_at,
            oom_killed=bool(ended and ended.oom),
            health=health.ended(container.health),
            error=None if ended else _lost(),
        )
        if changed:
            if container.settings.get("ports"):
                container.ports.update(published_port=None)
            if ended and ended.oom:
                container_event(container, "oom")
            container_event(container, "die", exitCode=str(code))
            networks.left(container)
            volumes_work.unmounted(container)
            publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)
    if after["restart_at"] is not None:
        restarts.ring()


def remove_locked(container: Container, *, volumes: bool) -> None:
    """It ended before. `volumes`: its anonymous ones, that no other container has, go too.

    The rows go first: whoever waits for its end need not wait until its files are gone, and
    reconcile takes away what is left of them. The caller holds the directory's lock."""
    host().containers.finish(container.uid, container.generation)
    key, uid = container.pk, container.uid
    with transaction.atomic():
        namespaces.lock(container.namespace)
        unused = volumes_work.anonymous_of(container) if volumes else []
        container_event(container, "destroy")
        container.delete()
        files = volumes_work.forget(unused)
        publish.changed(container.namespace_id, Kind.CONTAINER, key)
    host().containers.remove(uid)
    volumes_work.remove_files(files)


def _restarts(container: Container) -> bool:
    """Whether its end is the first half of a restart, after which `--rm` has to wait."""
    restarts = Operation.objects.open().filter(kind=Operation.Kind.CONTAINER_RESTART)
    return restarts.filter(target=str(container.pk)).exists()


def _lost() -> dict[str, Any]:
    return SupervisorLost(
        "the container's supervisor was lost, so the container was ended",
        hint="start it again",
    ).as_dict()
