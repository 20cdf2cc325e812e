"""Waiting for an operation's end on behalf of a client that holds its connection open."""

from __future__ import annotations

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
    if row.state != Operation.State.DONE:
        stored = row.error or {"id": "cancelled", "message": "the operation was cancelled"}
        raise OperationFailed(stored)
    return row
