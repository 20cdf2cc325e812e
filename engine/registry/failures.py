"""What went wrong, in words: HTTP answers and broken connections as typed errors.

Pure. Says also whether trying again may help and how long the server asks to wait. Leaves the
trying to engine.registry.session and the choice between endpoints to engine.registry.client.
"""

from __future__ import annotations

import email.utils
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.exceptions import SSLError as TLSError

from engine.errors import (
    RegistryError,
    RegistryNotFound,
    RegistryRateLimited,
    RegistryUnauthorized,
    RegistryUnavailable,
)
from engine.registry.endpoints import Endpoint

_TEXT_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Failure:
    """`again`: a repetition may succeed; `after`: seconds the server asks to wait, if it does."""

    error: RegistryError
    again: bool = False
    after: float | None = None


def of_answer(
    endpoint: Endpoint,
    subject: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    signed_in: bool,
) -> Failure:
    """`subject` is what was asked for (library/node:22); `signed_in`: credentials were sent."""
    said, code = _said(body), _code(body)
    context: dict[str, str | int] = {
        "registry": str(endpoint),
        "subject": subject,
        "status": status,
        **({"said": said} if said else {}),
        **({"code": code} if code else {}),
    }
    quoted = f" ({said})" if said else ""
    if status == HTTPStatus.UNAUTHORIZED and not signed_in:
        return Failure(
            RegistryUnauthorized(
                f"{endpoint} gives {subject} to nobody who is not signed in{quoted}",
                hint="check the name; for a private image, sign in to this registry first",
                **context,
            )
        )
    if status == HTTPStatus.UNAUTHORIZED:
        return Failure(
            RegistryUnauthorized(
                f"{endpoint} does not accept the sign-in for {subject}{quoted}",
                hint="check the user name and the password or token kept for this registry",
                **context,
            )
        )
    if status == HTTPStatus.FORBIDDEN:
        return Failure(
            RegistryUnauthorized(
                f"{endpoint} refuses {subject}{quoted}",
                hint="ask who runs this registry for the right to pull it",
                **context,
            )
        )
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return Failure(
            RegistryNotFound(
                f"{endpoint} has no {subject}",
                hint="check the spelling of the name and the tag",
                **context,
            )
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        after = _retry_after(headers)
        hint = "wait a while and try again, or sign in: most registries then allow more"
        if after is not None:
            hint = f"try again in {after:.0f} s, or sign in: most registries then allow more"
            context["retry_after"] = round(after)
        error = RegistryRateLimited(f"{endpoint} was asked too often{quoted}", hint=hint, **context)
        return Failure(error, again=True, after=after)
    if status >= 500:
        return Failure(
            RegistryUnavailable(
                f"{endpoint} answered {_status(status)} for {subject}{quoted}",
                hint="the registry has a trouble of its own: try again in a few minutes",
                **context,
            ),
            again=status != HTTPStatus.NOT_IMPLEMENTED,
            after=_retry_after(headers),
        )
    return Failure(
        RegistryError(
            f"{endpoint} answered {_status(status)} for {subject}{quoted}",
            hint="check that this address is a container registry's",
            **context,
        )
    )


def of_connection(endpoint: Endpoint, error: Exception) -> Failure:
    """For what urllib3 or the socket raised before there was an answer, or in the middle of one."""
    again = True
    if isinstance(error, NameResolutionError) or isinstance(error.__cause__, socket.gaierror):
        what, hint = "its name is not known", "check the name, and this machine's DNS"
        again = False
    elif isinstance(error, TLSError | ssl.SSLError):
        what = f"TLS failed: {_short(error)}"
        hint = (
            "its certificate must be one this machine trusts; for a registry without, an"
            " administrator names it in QUAYSIDE_INSECURE_REGISTRIES"
        )
        again = False
    elif isinstance(error, NewConnectionError):  # a kind of ConnectTimeoutError to urllib3
        what = f"no connection: {_short(error)}"
        hint = "check the address and that the registry runs"
    elif isinstance(error, ConnectTimeoutError | ReadTimeoutError | TimeoutError):
        what, hint = "it does not answer in time", "check the network, then try again"
    else:
        what = f"the connection broke: {_short(error)}"
        hint = "try again: what has arrived is kept"
    return Failure(
        RegistryUnavailable(
            f"{endpoint} cannot be reached: {what}", hint=hint, registry=str(endpoint)
        ),
        again=again,
    )


def was_answered(error: RegistryError) -> bool:
    """Whether a server said this, rather than nobody being there to say anything."""
    return not isinstance(error, RegistryUnavailable) or "status" in error.context


def _first(body: bytes) -> dict[str, object]:
    """{"errors": [{"code", "message"}]}'s first, or the whole object; {} for anything else."""
    try:
        answer = json.loads(body)
    except ValueError:
        return {}  # a proxy's HTML page helps nobody
    if not isinstance(answer, dict):
        return {}
    errors = answer.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else answer
    return first if isinstance(first, dict) else {}


def _code(body: bytes) -> str:
    """The distribution specification's error code: MANIFEST_UNKNOWN, DENIED …"""
    code = _first(body).get("code")
    return code[:40] if isinstance(code, str) and code.replace("_", "").isalpha() else ""


def _said(body: bytes) -> str:
    """The server's own words: an error's message or a token server's `details`."""
    first = _first(body)
    for key in ("message", "details", "error_description", "code"):
        if isinstance(text := first.get(key), str) and text:
            printable = "".join(c if c.isprintable() else " " for c in text)
            return printable.strip()[:_TEXT_LIMIT]
    return ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds (RFC 9110 section 10.2.3: a number, or a date)."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    if value.isdigit():
        return float(value[:9])
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None  # neither form: as if it were not there
    return max(0.0, moment.timestamp() - time.time())


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _short(error: Exception) -> str:
    """The innermost reason: urllib3 wraps it in texts that name objects by their address."""
    inner: BaseException = error
    while True:
        below = inner.__cause__ or next(
            (arg for arg in inner.args if isinstance(arg, BaseException)), None
        )
        if below is None or below is inner:
            break
        inner = below
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror.lower()
    if isinstance(inner, HTTPError):
        return "it ended early"
    return (str(inner) or type(inner).__name__).lower()[:_TEXT_LIMIT]
