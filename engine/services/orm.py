"""ORM calls from asyncio code, in threads of our own.

`database_sync_to_async` has one thread for a whole process: one slow query there holds up every
socket. Connections stay open in these threads (CONN_MAX_AGE) and are checked around each call.
`light` is for long lists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import close_old_connections
from django.db.models import Model, QuerySet
from django.db.models.base import ModelState

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=Model)


class OrmThreads:
    """`await threads(function, *args)` runs it in one of `size` threads."""

    def __init__(self, size: int) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="orm")

    async def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        call = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, _guarded, call)


def _guarded(call: Callable[[], R]) -> R:
    close_old_connections()
    try:
        return call()
    finally:
        close_old_connections()


orm = OrmThreads(6)


def light(query: QuerySet[M], *columns: str) -> Iterator[M]:
    """Rows to read from, with `columns` alone: three quarters of a long list's time went into
    Model.__init__. Any other field is asked of the database when it is read, as with defer()."""
    names = ["id" if column == "pk" else column for column in columns]
    using = query.db
    for values in query.values_list(*columns):
        row = query.model.__new__(query.model)
        row.__dict__.update(zip(names, values, strict=True))
        row._state = state = ModelState()
        state.adding, state.db = False, using
        yield row
