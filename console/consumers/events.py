"""/ws/events/: which rows changed, in every namespace the person may see. Ids only.

What changes several times within 50 ms is told once, so that a busy build does not flood pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from redis.exceptions import RedisError

from console.consumers.access import Visitor
from console.consumers.base import SocketConsumer
from console.models import Team
from console.permissions import Permission, may
from engine.events import group_of

GATHER_SECONDS = 0.05


class EventsConsumer(SocketConsumer):
    permission = Permission.SIGNED_IN
    channel_layer_alias = "default"

    def __init__(self) -> None:
        super().__init__()
        self._namespaces: list[int] = []
        self._joined: list[str] = []
        self._pending: dict[tuple[str, str], Mapping[str, Any]] = {}

    def allowed(self, visitor: Visitor) -> bool:
        self._namespaces = [
            namespace
            for namespace in Team.objects.values_list("namespace_id", flat=True)
            if may(visitor.user, Permission.SEE, namespace)
        ]
        return may(visitor.user, self.permission)

    async def opened(self) -> None:
        try:
            for namespace in self._namespaces:
                await self.channel_layer.group_add(group_of(namespace), self.channel_name)
                self._joined.append(group_of(namespace))
        except (RedisError, OSError):
            await self.finish(1012, "events-away", again=True)
            return
        await self.tell({"t": "hello", "v": 1})

    async def event_changed(self, message: Mapping[str, Any]) -> None:
        """From engine.publish, by the channel layer."""
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
        try:
            for group in self._joined:
                await self.channel_layer.group_discard(group, self.channel_name)
        except (RedisError, OSError):
            pass  # the subscription went with the connection
