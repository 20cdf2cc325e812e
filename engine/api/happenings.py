"""Events of streams, written down behind the answer: an attach must not wait for the database.

One task writes them in their order, all that have come in one transaction. What changes a row is
told with that row's change and not here.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from django.db import DatabaseError, transaction

from engine.models import Container
from engine.services.events import container_event
from engine.services.orm import orm

logger = logging.getLogger(__name__)

# Waiting to be written; beyond, the oldest goes: events tell, nothing depends on them.
_MOST = 10_000
_GATHER_SECONDS = 0.06
_Happening = tuple[Container, str, dict[str, str]]

_waiting: list[_Happening] = []
_writing: asyncio.Task[None] | None = None
_now = asyncio.Event()


def happened(container: Container, action: str, **more: str) -> None:
    """`action` in Docker's words. From the API's loop; returns at once."""
    global _writing
    _waiting.append((container, action, more))
    del _waiting[:-_MOST]
    if not action.startswith("exec_"):
        _now.set()
    if _writing is None or _writing.done():
        _writing = asyncio.create_task(_write())


def write_now() -> None:
    """Let what has happened be written without waiting for more of it."""
    _now.set()


async def settled() -> None:
    """Wait until all that has happened is written: before what comes after it by somebody's wish,
    and before events are read."""
    if _writing is not None and not _writing.done():
        _now.set()
        await asyncio.wait({_writing})


async def _write() -> None:
    while _waiting:
        # An exec's three come together as a rule; and not while it is being answered.
        with suppress(TimeoutError):
            async with asyncio.timeout(_GATHER_SECONDS):
                await _now.wait()
        _now.clear()
        batch = _waiting.copy()
        _waiting.clear()
        try:
            await orm(_record, batch)
        except DatabaseError:
            logger.exception("%d events were not written", len(batch))


def _record(batch: list[_Happening]) -> None:
    with transaction.atomic():
        there = set(
            Container.objects.filter(pk__in={one.pk for one, _, _ in batch}).values_list(
                "namespace_id", flat=True
            )
        )
        for container, action, more in batch:
            # A team that went took its events along.
            if container.namespace_id in there:
                container_event(container, action, **more)
