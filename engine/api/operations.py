"""Waiting for an operation's end on behalf of a client that holds its connection open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta

from django.utils import timezone

from engine.api.changes import Topic, changes, topic
from engine.api.errors import OperationFailed, QueueAway
from engine.events import Kind
from engine.models import Operation
from engine.services import operations
from engine.services.orm import orm

# A message that is on its way is not looked after.
_PATIENCE = timedelta(seconds=1)


async def ended(operation: Operation) -> Operation:
    """The operation's row once it is no longer open. Raises OperationFailed with its error, and
    QueueAway rather than wait for a queue that is not there: the operation stays."""

    async def look() -> Operation | None:
        row = await orm(_row, operation.pk)
        return None if row.is_open else row

    row = await changes.until(look, topic(Kind.OPERATION, operation.pk))
    check(row)
    return row


async def ended_or(operation: Operation, there: Callable[[], bool], *topics: Topic) -> None:
    """As `ended`, or until what it was for has come to be: `there`, which may ask the database, is
    asked again after each change of `topics`."""

    def look() -> Operation | None:
        row = _row(operation.pk)
        return row if not row.is_open or there() else None

    row = await changes.until(lambda: orm(look), topic(Kind.OPERATION, operation.pk), *topics)
    if not row.is_open:
        check(row)


async def steps(
    operation: Operation, gone: Callable[[], bool] = lambda: False
) -> AsyncIterator[Operation]:
    """The row at each of its progresses, the last time when it has ended, however it did; ends
    early, without that, once `gone` is true (asked each second: the client has left)."""
    seen: object = None

    async def look() -> Operation | None:
        row = await orm(_row, operation.pk)
        if row.is_open and row.progress == seen and not gone():
            return None
        return row

    while True:
        row = await changes.until(look, topic(Kind.OPERATION, operation.pk))
        if row.is_open and gone():
            return
        yield row
        if not row.is_open:
            return
        seen = row.progress


# Kept here until their end: the loop itself holds tasks weakly.
_going: set[asyncio.Task[None]] = set()


async def surely(work: Coroutine[None, None, None]) -> None:
    """Done to its end, also where the handler is cancelled meanwhile: of a client that leaves, a
    write fails first and the cancelling comes behind it."""
    task = asyncio.create_task(work)
    _going.add(task)
    task.add_done_callback(_going.discard)
    await asyncio.shield(task)


async def expected(operation: Operation) -> None:
    """Raises QueueAway where it waits for a queue that is not there."""
    await orm(_row, operation.pk)


def _row(key: int) -> Operation:
    row = Operation.objects.get(pk=key)
    if (
        row.state == Operation.State.QUEUED
        and timezone.now() - row.created_at > _PATIENCE
        and row.kind not in operations.WITHOUT_QUEUE
        and not operations.queue_answers()
    ):
        raise QueueAway(key)
    return row


def check(row: Operation) -> None:
    """Raises OperationFailed where the operation has not ended well."""
    if row.state != Operation.State.DONE:
        stored = row.error or {"id": "cancelled", "message": "the operation was cancelled"}
        raise OperationFailed(stored)
