"""What lies at an address somebody names, read as it comes: http and https, bounded, and from
inside the host's own network only where root's ceiling allows it (security case 13).

Leaves what the bytes are to the caller.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlsplit

from urllib3.exceptions import HTTPError, NameResolutionError

from engine.ceiling import Ceiling
from engine.errors import (
    Cancelled,
    FetchFailed,
    Forbidden,
    InvalidInput,
    NotFound,
    RegistryUnavailable,
)
from engine.registry import Timeouts
from engine.registry.connections import Guard
from engine.registry.endpoints import Endpoint
from engine.registry.transport import Answer, Transport

MOST_BYTES = 32 << 30
MOST_SECONDS = 3600.0
_LONGEST = 2048
_SAID = 200
_TICK = 0.25
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity"}
_HINT = (
    "root can allow it: fetch_addresses in ceiling.json has the networks of the host's own that "
    "may be fetched from"
)


class _Watching(Protocol):
    def __call__(self, current: int, total: int | None, /) -> None: ...


def checked(address: str) -> str:
    """The address as it is asked for; one without a scheme is http's, as in Docker. Raises
    InvalidInput, also for one with a password: it would be kept with what is made of it."""
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or len(url) > _LONGEST or any(c <= " " or c == "\x7f" for c in url):
        raise InvalidInput(f"not an address: {address[:_SAID]}", hint="write http://host/path")
    if parts.scheme not in ("http", "https"):
        raise InvalidInput(
            f'unsupported protocol scheme "{parts.scheme}": {address[:_SAID]}',
            hint="http and https are fetched",
        )
    if "@" in parts.netloc:
        raise InvalidInput(
            "an address with a user or a password in it is not fetched: it would be kept in the "
            "image's history",
            hint="fetch it yourself and send it: curl ADDRESS | docker import -",
        )
    return url


class Remote:
    """A body on its way. `total` is its length where the server says it."""

    def __init__(self, answer: Answer, transport: Transport, url: str) -> None:
        self._answer = answer
        self._transport = transport
        self._url = url
        self._until = time.monotonic() + MOST_SECONDS
        length = answer.headers.get("Content-Length", "")
        self.total = int(length) if length.isascii() and length.isdecimal() else None
        self.current = 0
        if self.total is not None and self.total > MOST_BYTES:
            raise self._too("large")

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at its end. Raises FetchFailed, Cancelled."""
        try:
            data = self._answer.raw.read1(size, decode_content=False)
        except (HTTPError, OSError) as error:
            self._transport.pause(0)  # broken because it was aborted: say that instead
            raise _broken(self._url, error) from error
        self.current += len(data)
        if self.current > MOST_BYTES:
            raise self._too("large")
        if time.monotonic() > self._until:
            raise self._too("slow")
        if not data and self.total is not None and self.current < self.total:
            raise FetchFailed(
                f"{self._url} ended after {self.current} of {self.total} bytes", hint="try again"
            )
        return data

    def _too(self, what: str) -> FetchFailed:
        return FetchFailed(
            f"{self._url} is too {what}",
            hint=f"at most {MOST_BYTES >> 30} GiB, in {MOST_SECONDS / 3600:.0f} hour",
        )


@contextmanager
def fetching(
    url: str, ceiling: Ceiling, cancelled: threading.Event, at: _Watching
) -> Iterator[Remote]:
    """The body of what `checked` has passed, its status a good one. `at` hears a few times a
    second how far it is, in a thread of its own; there `cancelled` is looked for as well.

    Raises NotFound, InvalidInput, Forbidden as the server says it, PolicyDenied for an address
    inside, FetchFailed, Cancelled."""
    transport = Transport(Timeouts(), Guard(ceiling.fetch_addresses, _HINT))
    remote: list[Remote] = []
    done = threading.Event()

    def watch() -> None:
        told = -1
        while not done.wait(_TICK):
            if cancelled.is_set():
                transport.abort()
                return
            if remote and remote[0].current != told:
                told = remote[0].current
                at(told, remote[0].total)

    watcher = threading.Thread(target=watch, name="fetch", daemon=True)
    watcher.start()
    try:
        answer = _answered(transport, url)
        try:
            found = Remote(answer, transport, url)
            remote.append(found)
            yield found
        finally:
            answer.close()
    finally:
        done.set()
        watcher.join()
        transport.close()


def _answered(transport: Transport, url: str) -> Answer:
    parts = urlsplit(url)
    endpoint = Endpoint(parts.scheme, parts.netloc)
    try:
        answer = transport.send(endpoint, "GET", url, _HEADERS)
    except (HTTPError, OSError) as error:
        transport.pause(0)
        raise _broken(url, error) from error
    except RegistryUnavailable as error:  # of its redirects
        raise FetchFailed(error.message, hint=error.hint) from error
    if answer.status < HTTPStatus.BAD_REQUEST:
        return answer
    try:
        body = answer.body()[:_SAID]
    except (HTTPError, OSError):
        body = b""  # its status says enough
    said = " ".join(
        "".join(c if c.isprintable() else " " for c in body.decode(errors="replace")).split()
    )
    reason = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else ""
    text = f"failed to GET {url} with status {f'{answer.status} {reason}'.strip()}: {said}"
    if answer.status == HTTPStatus.NOT_FOUND:
        raise NotFound(text)
    if answer.status == HTTPStatus.BAD_REQUEST:
        raise InvalidInput(text)
    if answer.status == HTTPStatus.FORBIDDEN:
        raise Forbidden(text)
    raise FetchFailed(text)


def _broken(url: str, error: Exception) -> FetchFailed | NotFound | Cancelled:
    if isinstance(error, NameResolutionError):
        host = urlsplit(url).hostname or ""
        return NotFound(f"{url} cannot be fetched: no such host: {host}")
    return FetchFailed(f"{url} cannot be fetched: {error}", hint="check the address and try again")
