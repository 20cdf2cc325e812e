"""Personal tokens for the Docker API over TLS: made, shown once, revoked."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.db.models import QuerySet
from django.utils import timezone

from engine.errors import InvalidInput, NotFound
from engine.models import ApiToken

_PREFIX = "qst_"
_MOST = 100


def token_create(user_id: int, name: str, days: int | None = None) -> tuple[ApiToken, str]:
    """The row and the token itself, which is kept nowhere. `days`: how long it holds; None is until
    it is revoked. Raises InvalidInput (with `field`)."""
    name = name.strip()
    if not 0 < len(name) <= 100:
        raise InvalidInput("a token has a name of at most 100 letters", field="name")
    if ApiToken.objects.filter(user_id=user_id).count() >= _MOST:
        raise InvalidInput(
            f"there are {_MOST} tokens already", hint="revoke those nobody uses", field="name"
        )
    token = _PREFIX + secrets.token_urlsafe(32)
    row = ApiToken.objects.create(
        user_id=user_id,
        name=name,
        digest=hashlib.sha256(token.encode()).hexdigest(),
        expires_at=timezone.now() + timedelta(days=days) if days else None,
    )
    return row, token


def tokens_of(user_id: int) -> QuerySet[ApiToken]:
    """The newest first."""
    return ApiToken.objects.filter(user_id=user_id).order_by("-created_at", "-pk")


def token_revoke(user_id: int, key: int) -> None:
    """From the next request on it opens nothing. Raises NotFound, also for somebody else's."""
    deleted, _ = ApiToken.objects.filter(user_id=user_id, pk=key).delete()
    if not deleted:
        raise NotFound("no such token")
