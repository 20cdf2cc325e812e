"""Signing in: credentials, what a 401 asks for, and the tokens it was answered with.

Parses `WWW-Authenticate` (RFC 9110 section 11) and reads token answers (distribution's token
specification) without I/O. Leaves the requests to engine.registry.session, and keeping secrets at
rest to whoever hands the credentials over.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from engine.errors import RegistryUnavailable

_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][\w-]*)(?=\s|,|$)")
_PARAMETER = re.compile(r"\s*,?\s*([\w-]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))")
_DEFAULT_LIFETIME = 60.0
_TOKEN_CHARACTERS = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and password, or an identity token (OAuth2 refresh token) in their place."""

    username: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """The Authorization header's value."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


@dataclass(frozen=True, slots=True)
class Challenge:
    """`scheme` in lower case (basic, bearer) and its parameters (realm, service, scope)."""

    scheme: str
    parameters: Mapping[str, str]

    def get(self, name: str) -> str:
        return self.parameters.get(name, "")


@dataclass(frozen=True, slots=True)
class Token:
    """`header` is the Authorization value; `lifetime` in seconds from now."""

    header: str = field(repr=False)
    lifetime: float


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Every challenge of one or several WWW-Authenticate headers; what is malformed ends one."""
    found = []
    for header in headers:
        at = 0
        while scheme := _SCHEME.match(header, at):
            at = scheme.end()
            parameters: dict[str, str] = {}
            while parameter := _PARAMETER.match(header, at):
                at = parameter.end()
                name, quoted, plain = parameter.groups()
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                parameters.setdefault(name.lower(), value)
            found.append(Challenge(scheme[1].lower(), parameters))
    return found


def choose_challenge(challenges: Iterable[Challenge]) -> Challenge | None:
    """Bearer before Basic (a token says less than a password); None where neither is offered."""
    by_scheme = {challenge.scheme: challenge for challenge in challenges}
    return by_scheme.get("bearer") or by_scheme.get("basic")


def token_query(challenge: Challenge, scope: str) -> str:
    """The query of a GET to the realm, without the `?`."""
    scopes = (challenge.get("scope") or scope).split()
    wanted = [("service", challenge.get("service")), *(("scope", each) for each in scopes)]
    return urlencode([(name, value) for name, value in wanted if value])


def token_form(challenge: Challenge, scope: str, identity_token: str) -> bytes:
    """The body of an OAuth2 POST to the realm."""
    return urlencode(
        {
            "grant_type": "refresh_token",
            "refresh_token": identity_token,
            "service": challenge.get("service"),
            "client_id": "quayside",
            "scope": challenge.get("scope") or scope,
        }
    ).encode()


def read_token(body: bytes, realm: str) -> Token:
    """Raises RegistryUnavailable when the answer has no usable token."""
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise _no_token(realm) from error
    values = answer if isinstance(answer, dict) else {}
    token = values.get("token") or values.get("access_token")
    if not isinstance(token, str) or not _TOKEN_CHARACTERS.fullmatch(token):
        raise _no_token(realm)
    lifetime = values.get("expires_in")
    seconds = float(lifetime) if isinstance(lifetime, int | float) else 0.0
    if not 0 < seconds < float("inf"):
        seconds = _DEFAULT_LIFETIME
    # Ahead of its end: a request under way must not outlive it, and clocks differ.
    return Token(f"Bearer {token}", seconds - min(10.0, seconds / 5))


def _no_token(realm: str) -> RegistryUnavailable:
    return RegistryUnavailable(
        f"{realm} answered a sign-in without a token",
        hint="the registry's sign-in server is at fault: try again later or tell who runs it",
        server=realm,
    )
