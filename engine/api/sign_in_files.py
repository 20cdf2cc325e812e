"""Sign-ins that came along with a request are on disk, for the worker, as long as what they are for
is at work: to the request's end, or longer where its operation waits for a queue that is away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from engine.api.changes import changes, topic
from engine.api.errors import QueueAway
from engine.errors import QuaysideError
from engine.events import Kind
from engine.models import Operation
from engine.registry.credentials import take_back
from engine.services.orm import orm

# Kept here until their end: the loop itself holds tasks weakly.
_waiting: set[asyncio.Task[None]] = set()


def done_with(run_dir: Path, keys: Iterable[str], error: QuaysideError | None = None) -> None:
    """Take them back: now, or where `error` is QueueAway when that operation has ended. An engined
    that ends meanwhile leaves them to engine.registry.credentials.forget_strays."""
    held = [key for key in keys if key]
    if isinstance(error, QueueAway) and held:
        task = asyncio.create_task(_later(run_dir, held, error.operation))
        _waiting.add(task)
        task.add_done_callback(_waiting.discard)
        return
    for key in held:
        take_back(run_dir, key)


async def _later(run_dir: Path, keys: Iterable[str], operation: int) -> None:
    async def ended() -> bool | None:
        return await orm(_ended, operation) or None

    await changes.until(ended, topic(Kind.OPERATION, operation))
    for key in keys:
        take_back(run_dir, key)


def _ended(operation: int) -> bool:
    return not Operation.objects.open().filter(pk=operation).exists()
