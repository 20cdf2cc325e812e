"""Who stands at a websocket's door: the request's origin and its session, before it is accepted.

Channels' own validator lets every origin through with ALLOWED_HOSTS `*` and all siblings with
`.example.com`; its session middleware shares one database thread. Both are therefore done here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, parse_cookie
from django.utils.http import is_same_domain

from console.models import User


@dataclass(frozen=True, slots=True)
class Visitor:
    """A signed-in person as they were when the socket opened."""

    user: User
    session_key: str

    @property
    def access_epoch(self) -> int:
        return self.user.access_epoch


def request_of(scope: Mapping[str, Any]) -> HttpRequest:
    """The upgrade request as Django sees requests, so that its rules for host and scheme hold."""
    request = HttpRequest()
    for name, value in scope["headers"]:
        key = "HTTP_" + name.decode("latin1").upper().replace("-", "_")
        request.META[key] = value.decode("latin1")
    server = scope.get("server") or ("", "")
    request.META["SERVER_NAME"], request.META["SERVER_PORT"] = str(server[0]), str(server[1])
    request.path = scope["path"]
    return request


def origin_refusal(request: HttpRequest) -> str:
    """Why this Origin may not open a socket here; empty when it may.

    Only the request's own scheme, host and port, or what CSRF_TRUSTED_ORIGINS names."""
    origin = request.META.get("HTTP_ORIGIN", "")
    if not origin:
        return "no origin"
    try:
        own = f"{request.scheme}://{request.get_host()}"
    except DisallowedHost:
        return f"host {request.META.get('HTTP_HOST', '')!r} is not one of ALLOWED_HOSTS"
    if origin == own or any(_matches(origin, trusted) for trusted in settings.CSRF_TRUSTED_ORIGINS):
        return ""
    return f"origin {origin!r} is not {own!r}"


def _matches(origin: str, trusted: str) -> bool:
    """Django's rule for CSRF_TRUSTED_ORIGINS: exact, or `https://*.example.com`."""
    if "*" not in trusted:
        return origin == trusted
    offered, allowed = urlsplit(origin), urlsplit(trusted.replace("*", "", 1))
    return offered.scheme == allowed.scheme and is_same_domain(offered.netloc, allowed.netloc)


def visitor_of(request: HttpRequest) -> Visitor | None:
    """The person whose live session the cookie names; None when signed out. Uses the ORM."""
    cookies = parse_cookie(request.META.get("HTTP_COOKIE", ""))
    key = cookies.get(settings.SESSION_COOKIE_NAME)
    if not key:
        return None
    request.session = SessionStore(key)
    user = get_user(request)
    if not isinstance(user, User) or not user.is_active:
        return None
    return Visitor(user, key)
