"""The sockets of this process, and the sweep that closes those whose person lost access.

A message through the channel layer does not close sockets soundly (dropped behind a burst, late
behind a busy handler). So: every 500 ms one look at the users and sessions of all open sockets;
what no longer holds is cut. `User.access_epoch` rises with every change of what a person may do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import ClassVar, Protocol

from django.contrib.sessions.models import Session
from django.db import DatabaseError
from django.utils import timezone

from console.consumers.access import Visitor
from console.models import User
from console.orm import orm

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 0.5
# Without a database nobody's access is known: sockets are cut rather than trusted for longer.
BLIND_SECONDS = 15.0


class Seat(Protocol):
    """What the registry needs of a socket: whose it is, and a way to close it."""

    visitor: Visitor
    most_per_user: ClassVar[int]

    async def finish(self, code: int, reason: str, *, again: bool = False) -> None: ...


class Registry:
    """Sockets by user, for limits; the sweep runs while there are any."""

    def __init__(self) -> None:
        self._sockets: set[Seat] = set()
        self._sweep: asyncio.Task[None] | None = None
        self.leaving = False

    def add(self, socket: Seat) -> bool:
        """False when this person has as many sockets of its kind as one may."""
        same = [
            other
            for other in self._sockets
            if type(other) is type(socket) and other.visitor.user.pk == socket.visitor.user.pk
        ]
        if len(same) >= socket.most_per_user:
            return False
        self._sockets.add(socket)
        if self._sweep is None or self._sweep.done():
            self._sweep = asyncio.create_task(self._run())
        return True

    def discard(self, socket: Seat) -> None:
        self._sockets.discard(socket)

    async def farewell(self) -> None:
        """This process stops: every page is told to come back to another."""
        self.leaving = True
        await self._finish(self._sockets, 1012, "restart", again=True)

    async def _run(self) -> None:
        seen = time.monotonic()
        while self._sockets:
            await asyncio.sleep(SWEEP_SECONDS)
            sockets = set(self._sockets)
            try:
                epochs, sessions = await orm(
                    _standing,
                    {socket.visitor.user.pk for socket in sockets},
                    {socket.visitor.session_key for socket in sockets},
                )
            except DatabaseError:
                if time.monotonic() - seen > BLIND_SECONDS:
                    logger.exception("no database for %.0f s, closing all sockets", BLIND_SECONDS)
                    await self._finish(sockets, 1012, "restart", again=True)
                continue
            seen = time.monotonic()
            gone = {s for s in sockets if s.visitor.session_key not in sessions}
            changed = {
                socket
                for socket in sockets - gone
                if epochs.get(socket.visitor.user.pk) != socket.visitor.access_epoch
            }
            await self._finish(gone, 4401, "signed-out")
            await self._finish(changed, 4403, "access-changed")

    async def _finish(
        self, sockets: Iterable[Seat], code: int, reason: str, *, again: bool = False
    ) -> None:
        """One that fails to close must not keep the sweep from the others."""
        closing = [socket.finish(code, reason, again=again) for socket in sockets]
        for result in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(result, Exception):
                logger.error("a socket did not close", exc_info=result)


def _standing(user_ids: set[int], keys: set[str]) -> tuple[dict[int, int], set[str]]:
    """The epochs of those who are active still, and the sessions that live still."""
    users = User.objects.filter(pk__in=user_ids, is_active=True)
    sessions = Session.objects.filter(session_key__in=keys, expire_date__gt=timezone.now())
    return (
        dict(users.values_list("pk", "access_epoch")),
        set(sessions.values_list("session_key", flat=True)),
    )


registry = Registry()
