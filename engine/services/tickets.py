"""One-use tickets by which web takes one stream from engined (design: Processes)."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.utils import timezone

from engine.errors import NotFound
from engine.models import StreamTicket

LIFETIME = timedelta(seconds=30)


def ticket_issue(user_id: int, session_key: str, action: str, target: str) -> str:
    """The token, 43 characters; only its SHA-256 is stored."""
    token = secrets.token_urlsafe(32)
    now = timezone.now()
    StreamTicket.objects.filter(expires_at__lt=now - LIFETIME).delete()
    StreamTicket.objects.create(
        token_sha256=_digest(token),
        user_id=user_id,
        session_sha256=_digest(session_key),
        action=action,
        target=target,
        expires_at=now + LIFETIME,
    )
    return token


def ticket_redeem(token: str) -> StreamTicket:
    """Raises NotFound when it is unknown, used or expired; only one caller ever gets it."""
    now = timezone.now()
    fresh = StreamTicket.objects.filter(
        token_sha256=_digest(token), used_at=None, expires_at__gte=now
    )
    if not fresh.update(used_at=now):
        raise NotFound("the ticket is unknown, used or expired", hint="connect again")
    return StreamTicket.objects.get(token_sha256=_digest(token))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
