"""/ws/logs/UID/?from=OFFSET: a container's log, raw, by offset; negative: the last N lines."""

from __future__ import annotations

from console.consumers.access import Visitor
from console.consumers.relay import RelayConsumer
from console.permissions import Permission, may
from engine.models import Container, StreamTicket


class LogsConsumer(RelayConsumer):
    permission = Permission.LOGS
    action = StreamTicket.Action.LOGS
    offsets = {"from": -1000}
    passes = frozenset({"ack", "follow"})

    def allowed(self, visitor: Visitor) -> bool:
        self.target = self.scope["url_route"]["kwargs"]["uid"]
        found = Container.objects.filter(uid=self.target).values_list("namespace_id", flat=True)
        return bool(found) and may(visitor.user, self.permission, found[0])
