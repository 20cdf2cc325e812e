"""A registry that misbehaves: a proxy in front of a sound one, told what to do wrong.

    with faulty_registry(server.address) as faulty:
        faulty.rule("/blobs/", status=500, times=2)          # answers instead of the registry
        faulty.rule("/blobs/", cut=100_000, times=1)         # breaks the connection mid-body
        faulty.rule("/blobs/", corrupt=True)                 # one bit of the body flipped
        faulty.rule("/manifests/", status=429, headers={"Retry-After": "1"})
        faulty.address, faulty.url, faulty.seen              # Seen(method, path, headers) each
        faulty.most_at_once                                  # requests served at one time

Rules are tried in order; one is used up after `times` (None: never). What no rule takes is passed
on unchanged, Range and all.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.registry_token import serve_http


@dataclass(frozen=True, slots=True)
class Seen:
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Rule:
    path: str
    times: int | None
    status: int | None
    headers: Mapping[str, str]
    body: bytes
    cut: int | None
    corrupt: bool
    truncate: int | None
    ignore_range: bool
    rate: int | None


@dataclass(slots=True)
class FaultyRegistry:
    target: str
    address: str = ""
    seen: list[Seen] = field(default_factory=list)
    most_at_once: int = 0
    _rules: list[_Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: int = 0

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def rule(
        self,
        path: str,
        *,
        times: int | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        cut: int | None = None,
        corrupt: bool = False,
        truncate: int | None = None,
        ignore_range: bool = False,
        rate: int | None = None,
    ) -> None:
        """For requests whose path contains `path`.

        status: answered here, with `headers` and `body`. cut: the connection breaks after that
        many bytes of the body. truncate: an honest-looking answer that many bytes shorter.
        rate: bytes a second, until `clear`. ignore_range: the whole body with 200, asked or not.
        """
        with self._lock:
            self._rules.append(
                _Rule(
                    path,
                    times,
                    status,
                    headers or {},
                    body,
                    cut,
                    corrupt,
                    truncate,
                    ignore_range,
                    rate,
                )
            )

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()
            self.seen.clear()

    def requests(self, path: str) -> list[Seen]:
        return [request for request in self.seen if path in request.path]

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def _holds(self, rule: _Rule) -> bool:
        with self._lock:
            return rule in self._rules

    def _match(self, seen: Seen) -> _Rule | None:
        with self._lock:
            self.seen.append(seen)
            for rule in self._rules:
                if rule.path in seen.path and rule.times != 0:
                    if rule.times is not None:
                        rule.times -= 1
                    return rule
        return None


@contextmanager
def faulty_registry(target: str) -> Iterator[FaultyRegistry]:
    """`target` is host:port of the sound one; plain http, GET and HEAD."""
    faulty = FaultyRegistry(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with faulty._counted():
                self._serve()

        def _serve(self) -> None:
            rule = faulty._match(Seen(self.command, self.path, dict(self.headers.items())))
            if rule and rule.status is not None:
                self.send_response(rule.status)
                self._finish(rule.headers, rule.body)
                return
            headers = dict(self.headers.items())
            if rule and rule.ignore_range:
                headers.pop("Range", None)
            upstream = http.client.HTTPConnection(faulty.target, timeout=30)
            try:
                upstream.request(self.command, self.path, headers=headers)
                answer = upstream.getresponse()
                body = answer.read()
            finally:
                upstream.close()
            if rule and rule.corrupt and body:
                middle = len(body) // 2
                body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
            if rule and rule.truncate:
                body = body[: -rule.truncate]
            self.send_response(answer.status)
            kept = ("content-type", "docker-content-digest", "www-authenticate", "content-range")
            self._finish(
                {name: value for name, value in answer.getheaders() if name.lower() in kept},
                body,
                cut=rule.cut if rule else None,
                slow=rule if rule and rule.rate else None,
            )

        do_HEAD = do_GET

        def _finish(
            self,
            headers: Mapping[str, str],
            body: bytes,
            cut: int | None = None,
            slow: _Rule | None = None,
        ) -> None:
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            try:
                if slow and slow.rate:
                    step, at = max(1, slow.rate // 50), 0
                    while at < len(body) and faulty._holds(slow):
                        self.wfile.write(body[at : at + step])
                        at += step
                        time.sleep(0.02)
                    self.wfile.write(body[at:])
                elif cut is not None and cut < len(body):
                    self.wfile.write(body[:cut])
                    self.close_connection = True
                else:
                    self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with serve_http(Handler) as faulty.address:
        yield faulty
