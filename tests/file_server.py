"""Files over plain http on loopback, with the faults one asks for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.registry_token import serve_http


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    claims: int
    then: float


@dataclass
class FileServer:
    """`asked` are the paths that were asked for."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    _files: dict[str, _File] = field(default_factory=dict)
    _redirects: dict[str, str] = field(default_factory=dict)

    def put(self, path: str, body: bytes, *, claims: int = -1, then: float = 0.0) -> None:
        """`claims`: the Content-Length where it is another; `then`: seconds of silence behind it,
        at most until the server ends."""
        self._files[path] = _File(body, len(body) if claims < 0 else claims, then)

    def redirect(self, path: str, to: str) -> None:
        self._redirects[path] = to


@contextmanager
def file_server() -> Iterator[FileServer]:
    server = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            if to := server._redirects.get(self.path):
                self.send_response(302)
                self.send_header("Location", to)
                self.end_headers()
                return
            found = server._files.get(self.path)
            if found is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(found.claims))
            self.end_headers()
            self.wfile.write(found.body)
            server.ended.wait(found.then)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serve_http(Handler) as address:
        server.url = f"http://{address}"
        try:
            yield server
        finally:
            server.ended.set()
