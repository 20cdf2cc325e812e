"""`docker container prune`: what does not run is removed, one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.db import transaction

from engine.containers.layout import snapshot_key
from engine.errors import NotFound, WrongState
from engine.models import Container, Operation
from engine.services.containers import prunable
from engine.services.events import record
from engine.services.work.host import host


def prune(
    operation: Operation, cancelled: threading.Event, remove: Callable[[Container], object]
) -> dict[str, Any]:
    """What was started or removed meanwhile is left out. {"containers": [ids], "bytes": int}."""
    until = operation.args.get("until")
    found = prunable(
        operation.namespace,
        until=datetime.fromisoformat(until) if until else None,
        label=operation.args.get("label", ()),
        label_not=operation.args.get("label_not", ()),
    )
    removed, freed = [], 0
    for container in found:
        if cancelled.is_set():
            break
        size = written(container.uid)
        try:
            remove(container)
        except (NotFound, WrongState):
            continue
        removed.append(container.uid)
        freed += size
    with transaction.atomic():
        record(operation.namespace, "container", "prune", "", {"reclaimed": str(freed)})
    return {"containers": removed, "bytes": freed}


def written(uid: str) -> int:
    """What a container's own files hold, in bytes as Docker counts; 0 before it is laid out."""
    try:
        return host().snapshots.usage(snapshot_key(uid)).length
    except NotFound:
        return 0
