"""Waiting for an operation's end on behalf of a client that holds its connection open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from engine.api.changes import changes, topic
from engine.api.errors import OperationFailed
from engine.events import Kind
from engine.models import Operation
from engine.services.orm import orm


async def ended(operation: Operation) -> Operation:
    """The operation's row once it is no longer open. Raises OperationFailed with its error."""

    async def look() -> Operation | None:
        row = await orm(Operation.objects.get, pk=operation.pk)
        return None if row.is_open else row

    row = await changes.until(look, topic(Kind.OPERATION, operation.pk))
    check(row)
    return row


async def steps(
    operation: Operation, gone: Callable[[], bool] = lambda: False
) -> AsyncIterator[Operation]:
    """The row at each of its progresses, the last time when it has ended, however it did; ends
    early, without that, once `gone` is true (asked each second: the client has left)."""
    seen: object = None

    async def look() -> Operation | None:
        row = await orm(Operation.objects.get, pk=operation.pk)
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


def check(row: Operation) -> None:
    """Raises OperationFailed where the operation has not ended well."""
    if row.state != Operation.State.DONE:
        stored = row.error or {"id": "cancelled", "message": "the operation was cancelled"}
        raise OperationFailed(stored)
