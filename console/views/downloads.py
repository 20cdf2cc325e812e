"""A container's log as a file, straight from engined: nothing of it is kept in web's memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

from django.conf import settings
from django.http import StreamingHttpResponse

from console.orm import orm
from console.permissions import Permission
from console.views.base import TeamRequest, team_view
from console.views.container import container_of
from engine.errors import EngineError
from engine.models import StreamTicket
from engine.services.tickets import ticket_issue
from engine.streams.client import open_stream
from engine.streams.framing import FrameKind


@team_view(Permission.LOGS)
def log_download(request: TeamRequest, name: str) -> StreamingHttpResponse:
    """All lines that are kept, each behind its time unless `?times=0`."""
    container = container_of(request, name)
    body = _text(
        request.user.pk,
        request.session.session_key or "",
        container.uid,
        times=request.GET.get("times") != "0",
    )
    response = StreamingHttpResponse(body, content_type="text/plain; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{container.name}.log"'
    return response


async def _text(user_id: int, session_key: str, uid: str, *, times: bool) -> AsyncIterator[bytes]:
    """The headers are gone when engined turns out to be away, so the download then breaks off."""
    action = StreamTicket.Action.LOGS
    ticket = await orm(ticket_issue, user_id, session_key, action, uid)
    stream = await open_stream(settings.ENGINE, ticket, {"download": True, "times": times})
    try:
        while (frame := await stream.read()) is not None:
            kind, payload = frame
            if kind is FrameKind.BINARY:
                yield payload
            elif b'"end"' in payload:
                return
        raise EngineError(f"the log of {uid[:12]} broke off before its end")
    finally:
        await stream.close()
