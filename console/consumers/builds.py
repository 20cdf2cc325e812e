"""/ws/builds/PK/?from=OFFSET: a build's log of events, JSON lines, by offset."""

from __future__ import annotations

from console.consumers.access import Visitor
from console.consumers.relay import RelayConsumer
from console.permissions import Permission, may
from engine.models import Build, StreamTicket


class BuildsConsumer(RelayConsumer):
    permission = Permission.SEE
    action = StreamTicket.Action.BUILD
    offsets = {"from": 0}

    def allowed(self, visitor: Visitor) -> bool:
        self.target = self.scope["url_route"]["kwargs"]["pk"]
        found = Build.objects.filter(pk=int(self.target)).values_list("namespace_id", flat=True)
        return bool(found) and may(visitor.user, self.permission, found[0])
