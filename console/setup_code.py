"""The one-time code for the first administrator: made at a start, shown in the terminal only."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from console.models import SetupCode, User

LIFETIME = timedelta(minutes=30)
TRIES = 5


def setup_is_open() -> bool:
    """As long as there is nobody who could sign in."""
    return not User.objects.exists()


def code_make() -> str:
    """A new code like 7F3K-Q2MX-9TBD (58 bits; no letter looks like a digit); the one before it
    is void."""
    raw = "".join(secrets.choice("23456789ABCDEFGHJKMNPQRSTVWXYZ") for _ in range(12))
    code = "-".join((raw[:4], raw[4:8], raw[8:]))
    with transaction.atomic():
        SetupCode.objects.all().delete()
        SetupCode.objects.create(
            code_sha256=_digest(code), tries_left=TRIES, expires_at=timezone.now() + LIFETIME
        )
    return code


def code_check(code: str) -> bool:
    """True for the right code in time; every call costs a try, whatever it says."""
    took = SetupCode.objects.filter(tries_left__gt=0, expires_at__gt=timezone.now()).update(
        tries_left=F("tries_left") - 1
    )
    return bool(took) and SetupCode.objects.filter(code_sha256=_digest(code)).exists()


def code_take(code: str) -> bool:
    """True for the one caller that takes the code out of use."""
    return SetupCode.objects.filter(code_sha256=_digest(code)).delete()[0] > 0


def _digest(code: str) -> str:
    plain = code.upper().replace("-", "").replace(" ", "")
    return hashlib.sha256(plain.encode()).hexdigest()
