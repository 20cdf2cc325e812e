"""Connections that look where they go, and that another thread can end.

- A server that only a user named may not lie on this host or in its private networks: each address
  is checked after the name is resolved and before a connection is made (security case 13).
- `Watch.abort` ends everything under way from another thread, whatever it waits for but a name.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import weakref
from dataclasses import dataclass
from typing import ClassVar

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from engine.errors import Cancelled, PolicyDenied

_BLOCK = 256 << 10


@dataclass(frozen=True, slots=True)
class Guard:
    """Which servers may be reached: those of the internet, and those within `inside`. `hint` says
    how an administrator allows another, with {host} for its name."""

    inside: tuple[ipaddress.IPv4Network, ...] = ()
    hint: str = (
        "an administrator can allow this registry: QUAYSIDE_REGISTRY_MIRRORS="
        "{host}=https://{host}, or QUAYSIDE_INSECURE_REGISTRIES for one without TLS"
    )

    def check(self, host: str, text: str) -> None:
        """`host` is at the address `text`. Raises PolicyDenied."""
        address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            # An IPv4 address in IPv6's clothes: mapped, 6to4, or NAT64's well-known prefix.
            nat64 = address in ipaddress.IPv6Network("64:ff9b::/96")
            within = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if nat64 else None
            address = address.ipv4_mapped or address.sixtofour or within or address
        if address.is_global and not address.is_multicast:
            return
        if any(address in network for network in self.inside):
            return
        raise PolicyDenied(
            f"{host} is at {text}, inside the host's own network",
            hint=self.hint.format(host=host),
            host=host,
            address=text,
        )


class Watch:
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

    watch: ClassVar[Watch]
    guard: ClassVar[Guard | None]

    def _new_conn(self) -> socket.socket:
        host = self.host.strip("[]")
        try:
            found = socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise NameResolutionError(self.host, self, socket.gaierror(str(error))) from error
        if self.guard is not None:
            for *_, address in found:
                self.guard.check(self.host, str(address[0]))
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


def pools(watch: Watch, guard: Guard | None, *, verify: bool) -> urllib3.PoolManager:
    """`guard` None: wherever it is; `verify`: whether certificates must be sound."""
    own = {"watch": watch, "guard": guard}
    plain = type("Plain", (_Connection,), own)
    tls = type("TLS", (_TLSConnection,), own)
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
