"""What happens on the machine with volumes: removal, pruning, sizes, tmpfs that nobody uses."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from engine import publish
from engine.containers.volumes import VolumeAt, Volumes
from engine.errors import Conflict, NotFound
from engine.events import Kind
from engine.models import Container, Operation, Volume, VolumeUse
from engine.services import events, namespaces, volumes
from engine.services.work.host import host

logger = logging.getLogger(__name__)
State = Container.State

# How long one look at all volumes may take: the others have their turn at the next. One alone may
# take a hundredth of the time.
_MEASURE_SECONDS = 5.0
_MEASURE_SHARE = 100


def store() -> Volumes:
    return Volumes(host().config)


def handle(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    if operation.kind == Operation.Kind.VOLUME_PRUNE:
        return _prune(operation, cancelled)
    volume = Volume.objects.filter(pk=int(operation.target), namespace=operation.namespace).first()
    if volume is None:
        if operation.attempt > 1:
            return {}  # an attempt before this one had done it when its worker was lost
        name = str(operation.args.get("name", ""))
        raise NotFound(f"no such volume: {name}", kind="volume", name=name)
    _remove(volume)
    return {}


def _remove(volume: Volume) -> None:
    """Raises Conflict. The row first: what is left of the files then is swept by reconcile."""
    key = volume.key.hex
    with transaction.atomic():
        namespaces.lock(volume.namespace)
        volumes.must_be_free(volume)
        _forget(volume)
    store().remove(key)


def _forget(volume: Volume) -> None:
    events.record(volume.namespace_id, "volume", "destroy", volume.name, {"driver": volumes.DRIVER})
    publish.changed(volume.namespace_id, Kind.VOLUME, volume.pk)
    volume.delete()


def _prune(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    args = operation.args
    found = volumes.prunable(
        operation.namespace,
        all=bool(args.get("all")),
        label=args.get("label", ()),
        label_not=args.get("label_not", ()),
    )
    names, size = [], 0
    for volume in found:
        if cancelled.is_set():
            break
        bytes = store().usage(volume.key.hex)
        try:
            _remove(volume)
        except Conflict:
            continue  # a container has taken it meanwhile
        names.append(volume.name)
        size += bytes
    with transaction.atomic():
        attributes = {"reclaimed": str(size)}
        events.record(operation.namespace, "volume", "prune", "", attributes)
    return {"volumes": names, "bytes": size}


def anonymous_of(container: Container) -> list[Volume]:
    """Anonymous volumes that no other container has. Call it before the container's row goes."""
    mine = {use.volume for use in volumes.uses_of(container) if use.volume.anonymous}
    return [volume for volume in mine if not volume.uses.exclude(container=container).exists()]


def forget(found: list[Volume]) -> list[str]:
    """Rows of what `anonymous_of` gave go with the container's, in its transaction and with the
    namespace locked: who waits for the container's end finds them gone. The keys of those nobody
    took meanwhile, for `remove_files`."""
    free = [volume for volume in found if not volume.uses.exists()]
    keys = [volume.key.hex for volume in free]
    for volume in free:
        _forget(volume)
    return keys


def remove_files(keys: list[str]) -> None:
    for key in keys:
        store().remove(key)


def mounted(container: Container, uses: Iterable[VolumeUse]) -> None:
    """Events of a start. Call it in the transaction that writes it down."""
    _tell(container, uses, "mount")


def unmounted(container: Container) -> None:
    """Events of an end. Call it in the transaction that writes it down."""
    _tell(container, volumes.uses_of(container), "unmount")


def _tell(container: Container, uses: Iterable[VolumeUse], action: str) -> None:
    for use in uses:
        attributes = {"driver": volumes.DRIVER, "container": container.uid}
        if action == "mount":
            attributes |= {
                "destination": use.destination,
                "propagation": "",
                "read/write": "false" if use.read_only else "true",
            }
        events.record(container.namespace_id, "volume", action, use.volume.name, attributes)


def let_go(container: Container) -> None:
    """A container has ended: a tmpfs goes with the last that runs and uses it."""
    for use in volumes.uses_of(container):
        volume = use.volume
        if VolumeAt(volume.key.hex, volumes.driver_options(volume)).tmpfs:
            others = Container.objects.filter(volume_uses__volume=volume).exclude(pk=container.pk)
            with store().lock(volume.key.hex):
                if not any(_has_use(other) for other in others):
                    store().unmount(volume.key.hex)


def _has_use(container: Container) -> bool:
    """It runs, or is about to."""
    starts = (Operation.Kind.CONTAINER_START, Operation.Kind.CONTAINER_RESTART)
    return container.is_running or (
        Operation.objects.open().filter(target=str(container.pk), kind__in=starts).exists()
    )


def sweep() -> list[str]:
    """For reconcile: folders without a row, whose removal was interrupted."""
    changed = []
    # Folders first: a row is always there before its folder.
    for key in store().every():
        if not Volume.objects.filter(key=key).exists():
            store().remove(key)
            changed.append(f"files of volume {key[:12]} without a row removed")
    swept = store().sweep()
    if swept:
        changed.append(f"{swept} removed volumes swept")
    return changed


def measure(found: Iterable[Volume]) -> None:
    """Sizes of volumes into their rows."""
    for volume in found:
        begun = time.monotonic()
        size = store().usage(volume.key.hex)
        volumes.measured(volume, size, time.monotonic() - begun)


def measure_changed() -> None:
    """For a timer of a minute: sizes of those that may have changed, measured longest ago first,
    as many as a few seconds are enough for."""
    deadline = time.monotonic() + _MEASURE_SECONDS
    now = timezone.now()
    every = [volume for volume in Volume.objects.all() if _may_have_changed(volume, now)]
    every.sort(key=lambda volume: str(volumes.usage(volume).at or ""))
    for volume in every:
        if time.monotonic() > deadline:
            break
        measure([volume])


def _may_have_changed(volume: Volume, now: datetime) -> bool:
    """Somebody had it since the last look, or has it; one that takes long is looked at seldom."""
    last = volumes.usage(volume)
    if last.at is None:
        return True
    if (now - last.at).total_seconds() < _MEASURE_SHARE * last.seconds:
        return False
    users = Container.objects.filter(volume_uses__volume=volume)
    return users.running().exists() or users.filter(finished_at__gt=last.at).exists()
