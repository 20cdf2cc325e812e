"""/ws/events/: which rows changed, in every namespace the person may see. Ids only.

What changes several times within 50 ms is told once, so that a busy build does not flood pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from channels.layers import get_channel_layer
from redis.exceptions import RedisError

from console.consumers.access import Visitor
from console.consumers.base import SocketConsumer
from console.models import Team
from console.permissions import Permission, may
from engine.events import group_of

GATHER_SECONDS = 0.05
ATTEMPTS = 4
RETRY_SECONDS = 0.2


class EventsConsumer(SocketConsumer):
    """Listens to the channel layer by itself: Channels' own way fails the upgrade with a 500 while
    Redis is away, and the page would not know why."""

    permission = Permission.SIGNED_IN

    def __init__(self) -> None:
        super().__init__()
        self._namespaces: list[int] = []
        self._channel = ""
        self._pending: dict[tuple[str, str], Mapping[str, Any]] = {}

    def allowed(self, visitor: Visitor) -> bool:
        self._namespaces = [
            namespace
            for namespace in Team.objects.values_list("namespace_id", flat=True)
            if may(visitor.user, Permission.SEE, namespace)
        ]
        return may(visitor.user, self.permission)

    async def opened(self) -> None:
        for attempt in range(ATTEMPTS):
            try:
                await self._join()
                break
            except (RedisError, OSError):
                # After a restart of Redis the first use of each old connection fails.
                await asyncio.sleep(RETRY_SECONDS * attempt)
        else:
            await self.finish(1012, "events-away", again=True)
            return
        self.spawn(self._listen())
        await self.tell({"t": "hello", "v": 1})

    async def _join(self) -> None:
        layer = get_channel_layer()
        self._channel = await layer.new_channel()
        for namespace in self._namespaces:
            await layer.group_add(group_of(namespace), self._channel)

    async def _listen(self) -> None:
        layer = get_channel_layer()
        while True:
            message = await layer.receive(self._channel)
            if not self._pending:
                self.spawn(self._tell_pending())
            change = {key: message[key] for key in ("t", "kind", "id", "rev")}
            self._pending[change["kind"], change["id"]] = change

    async def _tell_pending(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        pending, self._pending = self._pending, {}
        for change in pending.values():
            await self.tell(change)

    async def disconnect(self, code: int) -> None:
        await super().disconnect(code)
        layer = get_channel_layer()
        try:
            for namespace in self._namespaces if self._channel else ():
                await layer.group_discard(group_of(namespace), self._channel)
        except (RedisError, OSError):
            pass  # the subscription went with the connection
