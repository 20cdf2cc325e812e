"""HTTP by urllib3: connections that look where they go, redirects that give nothing away.

- A server that only a user named may not lie on this host or in its private networks: each address
  is checked after the name is resolved and before a connection is made, on every redirect and
  sign-in too (security case 13). Trusted endpoints are exempt, and so is where they send us.
- Authorization goes to the scheme, host and port it was meant for, never along a redirect.
- `abort` ends everything under way from another thread, whatever it waits for but a name.

Leaves statuses, sign-in and repetition to engine.registry.session.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from engine.errors import Cancelled, PolicyDenied, RegistryUnavailable
from engine.registry.endpoints import Endpoint

USER_AGENT = "quayside/0.1.0"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_BODY_LIMIT = 64 << 10
_BLOCK = 256 << 10


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

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeout = urllib3.Timeout(connect=timeouts.connect, read=timeouts.read)
        self._watch = _Watch()
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
            hint="tell who runs this registry",
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
                hint="tell who runs this registry: it must redirect to https",
                registry=str(endpoint),
            )

    def _manager(self, endpoint: Endpoint) -> urllib3.PoolManager:
        key = (endpoint.trusted, endpoint.verify)
        with self._lock:
            if key not in self._managers:
                self._managers[key] = _manager(self._watch, *key)
            return self._managers[key]


def same_origin(url: str, other: str) -> bool:
    return _origin(url) == _origin(other)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port


class _Watch:
    """Knows every open socket, so that one thread can end what the others wait for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._aborted = threading.Event()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def add(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.add(sock)
        self.pause(0)

    def abort(self) -> None:
        self._aborted.set()
        with self._lock:
            for sock in self._sockets:
                try:
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except OSError:
                    pass  # closed, or not connected yet: nothing waits on it

    def pause(self, seconds: float) -> None:
        if self._aborted.wait(seconds) if seconds else self._aborted.is_set():
            raise Cancelled("the transfer was cancelled")


class _Connection(HTTPConnection):
    """Resolves, checks, connects; `_new_conn` is urllib3's own seam for that (we pin it)."""

    watch: ClassVar[_Watch]
    guarded: ClassVar[bool]

    def _new_conn(self) -> socket.socket:
        host = self.host.strip("[]")
        try:
            found = socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise NameResolutionError(self.host, self, socket.gaierror(str(error))) from error
        if self.guarded:
            for *_, address in found:
                _check_address(self.host, str(address[0]))
        failed: OSError = OSError("the name has no address")
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(self.timeout)
                self.watch.add(sock)
                sock.connect(address)
            except OSError as error:
                sock.close()
                failed = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        if isinstance(failed, TimeoutError):
            raise ConnectTimeoutError(self, f"{self.host} timed out") from failed
        raise NewConnectionError(self, str(failed)) from failed

    def connect(self) -> None:
        super().connect()
        if self.sock is not None:  # with TLS another object than the one that connected
            self.watch.add(self.sock)


class _TLSConnection(_Connection, HTTPSConnection):
    pass


def _manager(watch: _Watch, trusted: bool, verify: bool) -> urllib3.PoolManager:
    plain = type("Plain", (_Connection,), {"watch": watch, "guarded": not trusted})
    tls = type("TLS", (_TLSConnection,), {"watch": watch, "guarded": not trusted})
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    manager = urllib3.PoolManager(maxsize=8, ssl_context=context, blocksize=_BLOCK)
    manager.pool_classes_by_scheme = {
        "http": type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("TLSPool", (HTTPSConnectionPool,), {"ConnectionCls": tls}),
    }
    return manager


def _check_address(host: str, text: str) -> None:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        # An IPv4 address in IPv6's clothes: mapped, 6to4, or NAT64's well-known prefix.
        nat64 = address in ipaddress.IPv6Network("64:ff9b::/96")
        within = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if nat64 else None
        address = address.ipv4_mapped or address.sixtofour or within or address
    if address.is_global and not address.is_multicast:
        return
    raise PolicyDenied(
        f"{host} is at {text}, inside the host's own network",
        hint=(
            "an administrator can allow this registry: QUAYSIDE_REGISTRY_MIRRORS="
            f"{host}=https://{host}, or QUAYSIDE_INSECURE_REGISTRIES for one without TLS"
        ),
        host=host,
        address=text,
    )
