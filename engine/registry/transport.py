"""HTTP by urllib3: redirects that give nothing away.

- A server that only a user named may not lie inside the host's own network, nor may a redirect or
  a sign-in lead there (engine.registry.connections). Trusted endpoints are exempt, and so is where
  they send us.
- Authorization goes to the scheme, host and port it was meant for, never along a redirect.

Leaves statuses, sign-in and repetition to engine.registry.session.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urljoin, urlsplit

import urllib3

from engine.errors import RegistryUnavailable
from engine.registry.connections import Guard, Watch, pools
from engine.registry.endpoints import Endpoint

USER_AGENT = "quayside/0.1.0"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_BODY_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for a connection, and between two pieces of an answer."""

    connect: float = 10.0
    read: float = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body is still to be read; `foreign` when another server gave it."""

    raw: urllib3.BaseHTTPResponse
    foreign: bool

    @property
    def status(self) -> int:
        return self.raw.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self.raw.headers

    def challenges(self) -> list[str]:
        """Every WWW-Authenticate header."""
        return list(self.raw.headers.getlist("WWW-Authenticate"))

    def close(self) -> None:
        """Nobody reads it: its connection ends with it."""
        self.raw.close()
        self.raw.release_conn()

    def body(self, limit: int = _BODY_LIMIT) -> bytes:
        """At most `limit` + 1 bytes of it, so that the caller sees when there is more; then the
        connection is given back, or closed when something is left."""
        data = self.raw.read(limit + 1, decode_content=False)
        if len(data) > limit:
            self.raw.close()
        self.raw.release_conn()
        return data


class Body(Protocol):
    """What is sent: a file, or something that reads like one."""

    def read(self, size: int = -1, /) -> bytes: ...
    def close(self) -> None: ...


class Transport:
    """Connections to any number of servers, thread safe, for one transfer: see `abort`."""

    def __init__(self, timeouts: Timeouts, guard: Guard | None = None) -> None:
        self._timeout = urllib3.Timeout(connect=timeouts.connect, read=timeouts.read)
        self._guard = guard or Guard()
        self._watch = Watch()
        self._managers: dict[tuple[bool, bool], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def abort(self) -> None:
        """Every call under way, and every later one, raises Cancelled or a connection's error."""
        self._watch.abort()

    def pause(self, seconds: float) -> None:
        """Wait. Raises Cancelled after `abort`."""
        self._watch.pause(seconds)

    def close(self) -> None:
        with self._lock:
            for manager in self._managers.values():
                manager.clear()

    def send(
        self,
        endpoint: Endpoint,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Body | None = None,
    ) -> Answer:
        """One request, followed over redirects where it has no body; `headers` say the length of
        one that is a stream. Raises urllib3's HTTPError or OSError where
        no answer came, PolicyDenied, RegistryUnavailable for a redirect not to be followed."""
        manager = self._manager(endpoint)
        sent = {"User-Agent": USER_AGENT, **headers}
        target, foreign = url, False
        for _ in range(_MAX_REDIRECTS + 1):
            self._watch.pause(0)
            raw = manager.urlopen(
                method,
                target,
                headers=sent,
                body=body,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=self._timeout,
            )
            location = raw.headers.get("Location")
            if body is not None or raw.status not in _REDIRECTS or not location:
                return Answer(raw, foreign)
            raw.drain_conn()
            raw.release_conn()
            origin, target = target, urljoin(target, location)
            self.check_redirect(endpoint, origin, target)
            if _origin(target) != _origin(url):
                foreign = True
                sent = {name: sent[name] for name in sent if name.lower() != "authorization"}
        raise RegistryUnavailable(
            f"{endpoint} redirects in a circle",
            hint="tell who runs it",
            registry=str(endpoint),
        )

    @staticmethod
    def check_redirect(endpoint: Endpoint, origin: str, target: str) -> None:
        """Raises RegistryUnavailable for an address without TLS where there was TLS before."""
        before, after = urlsplit(origin).scheme, urlsplit(target).scheme
        plain = after == "http" and (before == "http" or endpoint.trusted)
        if after != "https" and not plain:
            raise RegistryUnavailable(
                f"{endpoint} redirects to {after or 'nowhere'}://, which is not followed",
                hint="tell who runs it: it must redirect to https",
                registry=str(endpoint),
            )

    def _manager(self, endpoint: Endpoint) -> urllib3.PoolManager:
        key = (endpoint.trusted, endpoint.verify)
        with self._lock:
            if key not in self._managers:
                guard = None if endpoint.trusted else self._guard
                self._managers[key] = pools(self._watch, guard, verify=endpoint.verify)
            return self._managers[key]


def same_origin(url: str, other: str) -> bool:
    return _origin(url) == _origin(other)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port
