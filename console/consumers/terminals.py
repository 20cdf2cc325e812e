"""/ws/terminals/SESSION/?seen=OFFSET: a terminal; only who opened it may have it, so far."""

from __future__ import annotations

from console.consumers.access import Visitor
from console.consumers.relay import RelayConsumer
from console.permissions import Permission, may
from engine.models import StreamTicket, TerminalSession


class TerminalsConsumer(RelayConsumer):
    permission = Permission.EXEC
    action = StreamTicket.Action.TERMINAL
    offsets = {"seen": -1}
    passes = frozenset({"ack", "resize", "eof"})
    takes_bytes = True
    most_per_user = 20

    def allowed(self, visitor: Visitor) -> bool:
        self.target = self.scope["url_route"]["kwargs"]["session"]
        found = TerminalSession.objects.filter(pk=self.target, owner_id=visitor.user.pk)
        namespaces = found.values_list("container__namespace_id", flat=True)
        return bool(namespaces) and may(visitor.user, self.permission, namespaces[0])
