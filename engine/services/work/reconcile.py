"""Makes rows and machine agree again: at engined's start, and once a minute.

The machine is the truth about what runs and what is there; rows are the truth about what is
wanted. Every function returns one sentence for each thing it changed; none waits for a runtime.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

from django.contrib.sessions.models import Session
from django.utils import timezone

from engine.containers.layout import ContainerDir
from engine.errors import QuaysideError
from engine.images.gc import collect_abandoned
from engine.images.leases import Leases
from engine.models import (
    Build,
    BuildCacheEntry,
    Container,
    Endpoint,
    Event,
    Operation,
    StreamTicket,
    Upload,
)
from engine.registry import credentials
from engine.runtime.steps import reap_steps
from engine.services import addresses, image_transfers, uploads
from engine.services.work import builds, exits, networks, starts, volumes
from engine.services.work.garbage import collect_garbage
from engine.services.work.host import host
from engine.services.work.sources import drop_source, has_source

logger = logging.getLogger(__name__)

_KEEP_BUILDS = 20
_LEFT_OVER = ("starting", "ended", "lost")
_UPLOAD_AGE = timedelta(days=1)
_OPERATION_AGE = timedelta(days=30)
_EVENT_AGE = timedelta(days=1)
_MOST_EVENTS = 10_000
_CACHE_AGE = timedelta(days=30)


def reconcile() -> list[str]:
    """Containers, builds, networks, layers; what was changed."""
    changed: list[str] = []
    for look in (_steps, _builds, _containers, _strays, _network, _layers):
        changed += _guarded(look)
    for sweep in (volumes.sweep, networks.sweep):
        changed += _guarded(sweep)
    for line in changed:
        logger.info("%s", line)
    return changed


def _guarded(look: Callable[..., list[str]], *args: Any) -> list[str]:
    """What cannot be mended must keep neither the others from it nor engined from serving."""
    try:
        return look(*args)
    except Exception:
        logger.exception("reconcile failed in %s%s", look.__name__, args or "")
        return []


def _steps() -> list[str]:
    return [f"step {id} of a dead worker ended" for id in reap_steps(host().runtime)]


def _builds() -> list[str]:
    return builds.forget_lost(lambda build: not _has_open_operation(f"{build.pk}", "build."))


def _layers() -> list[str]:
    """What dead workers were unpacking, or removing."""
    removed = collect_abandoned(host().snapshots, Leases.of(host().config))
    changed = [f"layer {name} of a dead worker removed" for name in removed]
    swept = host().snapshots.sweep()
    if swept:
        changed.append(f"{swept} layers without a name removed")
    return changed


def _has_open_operation(target: str, prefix: str) -> bool:
    return Operation.objects.open().filter(target=target, kind__startswith=prefix).exists()


def _containers() -> list[str]:
    """Each row against its newest start on the machine."""
    return [line for row in Container.objects.all() for line in _guarded(_container, row)]


def _container(container: Container) -> list[str]:
    try:
        observed = host().containers.observe(container.uid)
    except QuaysideError:
        # Created as a row only, or its folder was lost; a running one cannot be any more.
        if not container.is_running:
            return _removed(container)
        exits.record_exit(container.uid, container.generation)
        return [f"container {container.name} has no folder: marked as ended"]
    if observed.running == container.is_running and (
        not observed.running or observed.generation == container.generation
    ):
        if _has_open_operation(str(container.pk), "container."):
            return []
        if observed.status in _LEFT_OVER:
            return _finish(container.uid, container.name)
        return _removed(container)
    if container.is_running:
        exits.record_exit(container.uid, container.generation)
        return [f"container {container.name} had ended"]
    if _has_open_operation(str(container.pk), "container."):
        return []
    return _adopt(container.uid)


def _removed(container: Container) -> list[str]:
    """One of `--rm` whose removal, after its end, was interrupted; its folder may be gone."""
    if container.state != Container.State.EXITED or not container.settings.get("auto_remove"):
        return []
    exits.record_exit(container.uid, container.generation)
    return [f"container {container.name} had ended and is removed"]


def _finish(uid: str, name: str) -> list[str]:
    """Looked at once more under the lock: whoever recorded the end may just have cleaned up."""
    with ContainerDir(host().config, uid).lock():
        observed = host().containers.observe(uid)
        if observed.status not in _LEFT_OVER:
            return []
        host().containers.finish(uid, observed.generation)
    return [f"what was left of a start of {name} is cleaned up"]


def _adopt(uid: str) -> list[str]:
    """It runs though no row says so: its starter was killed between the start and the row."""
    with ContainerDir(host().config, uid).lock():
        container = Container.objects.get(uid=uid)
        if container.is_running or not starts.adopt(container):
            return []
    return [f"container {container.name} runs: its row says so now"]


def _strays() -> list[str]:
    """Container folders without a row: their removal was interrupted."""
    changed = []
    rows = set(Container.objects.values_list("uid", flat=True))
    for uid in host().containers.list_on_disk():
        if uid not in rows and not Container.objects.filter(uid=uid).exists():
            changed += _guarded(_stray, uid)
    return changed


def _stray(uid: str) -> list[str]:
    directory = ContainerDir(host().config, uid)
    with directory.lock():
        if not directory.settings.exists():
            return []  # its removal was only on its way
        observed = host().containers.observe(uid)
        host().containers.stop(uid, observed.generation, 9, 0)
        host().containers.remove(uid)
    return [f"container {uid[:12]} without a row removed"]


def _trim_events(now: datetime) -> None:
    """A day's, and not more than the newest _MOST_EVENTS."""
    Event.objects.filter(at__lt=now - _EVENT_AGE).delete()
    oldest = Event.objects.order_by("-pk").values_list("pk", flat=True)[_MOST_EVENTS:].first()
    if oldest is not None:
        Event.objects.filter(pk__lte=oldest).delete()


class _AllBut(Collection[str]):
    """Every id there is or will be, except those known to be dead: a container that starts while
    we look must not lose its network."""

    def __init__(self, dead: set[str]) -> None:
        self._dead = dead

    def __contains__(self, id: object) -> bool:
        return id not in self._dead

    def __iter__(self) -> Iterator[str]:
        raise TypeError("ids that live cannot be listed")

    def __len__(self) -> int:
        raise TypeError("ids that live cannot be counted")


def _network() -> list[str]:
    """Give back addresses, interfaces and ports of what no longer runs; mend what is missing."""
    running_builds = set(
        Build.objects.filter(state=Build.State.RUNNING).values_list("pk", flat=True)
    )
    Endpoint.objects.filter(container=None).exclude(
        owner__in=[f"build-{pk}" for pk in running_builds]
    ).delete()
    dead = set()
    with ExitStack() as locks:
        for record in host().network.observe().containers:
            if record.id.startswith("build-"):
                if int(record.id.split("-")[1]) not in running_builds:
                    dead.add(record.id)
                continue
            row = Container.objects.filter(uid=record.id).first()
            if row is not None and (
                row.is_running or _has_open_operation(str(row.pk), "container.")
            ):
                continue
            # Held until the repair is done, so that no start comes in between.
            locks.enter_context(ContainerDir(host().config, record.id).lock())
            dead.add(record.id)
        changed = list(host().network.repair(_AllBut(dead)))
    return changed + _addresses()


def _addresses() -> list[str]:
    """Who gave back an address was killed before the row said so."""
    changed = []
    held = Container.objects.filter(endpoints__fixed=False, endpoints__address__isnull=False)
    for row in held.distinct():
        with ContainerDir(host().config, row.uid).lock():
            fresh = Container.objects.filter(pk=row.pk).first()
            if fresh is None or fresh.is_up or _has_open_operation(str(row.pk), "container."):
                continue
            addresses.give_back(fresh)
            changed.append(f"address of container {row.uid[:12]} given back")
    return changed


def mend_names() -> list[str]:
    """Name servers that have died are started again; nothing else is looked at."""
    observed = host().network.observe()
    served = any(record.attachments for record in observed.containers)
    if not served or observed.name_servers:
        return []
    return list(host().network.repair(_AllBut(set())))


def tidy() -> list[str]:
    """Now and then: what has no further use. Blobs and layers, old contexts, uploads, tickets,
    sessions nobody signed out of."""
    now = timezone.now()
    StreamTicket.objects.filter(expires_at__lt=now - timedelta(minutes=5)).delete()
    Operation.objects.filter(finished_at__lt=now - _OPERATION_AGE).delete()
    BuildCacheEntry.objects.filter(used_at__lt=now - _CACHE_AGE).delete()
    _trim_events(now)
    changed = []
    Session.objects.filter(expire_date__lt=now).delete()
    waiting = Build.objects.open().exclude(upload=None).values("upload")
    for upload in Upload.objects.filter(updated_at__lt=now - _UPLOAD_AGE).exclude(pk__in=waiting):
        uploads.upload_path(upload).unlink(missing_ok=True)
        upload.delete()
        changed.append(f"upload {upload.filename} dropped")
    changed += uploads.forget_strays(now - _UPLOAD_AGE)
    changed += image_transfers.forget_strays(now - _UPLOAD_AGE)
    changed += credentials.forget_strays(host().config.run_dir, (now - _UPLOAD_AGE).timestamp())
    kept = set(Build.objects.order_by("-created_at").values_list("pk", flat=True)[:_KEEP_BUILDS])
    for build in Build.objects.exclude(pk__in=kept):
        folder = builds.folder_of(build)
        if has_source(folder) and not build.is_open:
            builds.clear(build)  # the snapshot of the step it failed in
            drop_source(folder)
            changed.append(f"the source of build #{build.number} dropped")
    return changed + collect_garbage()
