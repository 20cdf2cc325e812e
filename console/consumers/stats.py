"""/ws/stats/UID/: what a container uses and its processes, a reading a second."""

from __future__ import annotations

from console.consumers.access import Visitor
from console.consumers.relay import RelayConsumer
from console.permissions import Permission, may
from engine.models import Container, StreamTicket


class StatsConsumer(RelayConsumer):
    permission = Permission.INSPECT
    action = StreamTicket.Action.STATS
    passes = frozenset({"look"})

    def allowed(self, visitor: Visitor) -> bool:
        self.target = self.scope["url_route"]["kwargs"]["uid"]
        found = Container.objects.filter(uid=self.target).values_list("namespace_id", flat=True)
        return bool(found) and may(visitor.user, self.permission, found[0])
