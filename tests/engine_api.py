"""The Docker API as a client without a library speaks it: requests, and connections taken over."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.box_site import BoxSite

SECONDS = 20.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = dial(self._path)


def dial(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(SECONDS)
    made.connect(str(path))
    return made


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """(1 stdout or 2 stderr, payload) each; the whole must be frames."""
    found = []
    at = 0
    while at < len(data):
        number, length = struct.unpack_from(">BxxxI", data, at)
        found.append((number, data[at + 8 : at + 8 + length]))
        assert len(found[-1][1]) == length, "a frame is cut"
        at += 8 + length
    return found


def texts(data: bytes, number: int = 1) -> bytes:
    """One stream's payloads put together."""
    return b"".join(payload for stream, payload in frames(data) if stream == number)


@dataclass
class Hijacked:
    """A connection that was taken over. `status` 101 or 200."""

    socket: socket.socket
    status: int
    headers: dict[str, str]
    data: bytes = field(default=b"")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def until(self, wanted: bytes) -> bytes:
        """Read until `wanted` is in what came so far."""
        while wanted not in self.data:
            more = self.socket.recv(65536)
            assert more, f"ended without {wanted!r}: {self.data[-200:]!r}"
            self.data += more
        return self.data

    def rest(self) -> bytes:
        """Everything until the server closes."""
        while more := self.socket.recv(1 << 20):
            self.data += more
        return self.data

    def close(self) -> None:
        self.socket.close()


class EngineApi:
    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, site: BoxSite) -> EngineApi:
        return cls(site.site.home / "run/docker.sock")

    def process(self) -> int:
        """The pid of who serves it."""
        with closing(dial(self.path)) as connection:
            peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("3i", peer)[0])

    def call(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """`body` bytes as they are, anything else as JSON."""
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if sent is not None else {}
        with closing(_Connection(self.path)) as connection:
            connection.request(method, path, sent, {**kind, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())

    def get(self, path: str) -> Answer:
        return self.call("GET", path)

    def post(self, path: str, body: object = None) -> Answer:
        return self.call("POST", path, body)

    def hijack(self, path: str, body: object = None, *, upgrade: bool = True) -> Hijacked:
        """POST and take over; the status may also be an error's, then `data` begins its body."""
        sent = b"" if body is None else json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "Host: docker", f"Content-Length: {len(sent)}"]
        lines.append("Content-Type: application/json" if sent else "Content-Type: text/plain")
        if upgrade:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        made = dial(self.path)
        made.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + sent)
        head = b""
        while b"\r\n\r\n" not in head:
            more = made.recv(65536)
            assert more, head
            head += more
        head, _, data = head.partition(b"\r\n\r\n")
        first, *others = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in others)
        return Hijacked(made, int(first.split()[1]), headers, data)

    @contextmanager
    def begun(self, method: str, path: str) -> Iterator[http.client.HTTPResponse]:
        """A request whose head has been answered; its body may come late."""
        with closing(_Connection(self.path)) as connection:
            connection.request(method, path)
            yield connection.getresponse()

    def until_logged(self, container: str, wanted: bytes) -> None:
        """Return when its log has this: what a program writes is there soon after its start."""
        seen = b""
        query = "stdout=1&stderr=1&follow=1"
        with self.begun("GET", f"/v1.47/containers/{container}/logs?{query}") as answer:
            while wanted not in seen:
                piece = answer.read1(65536)
                assert piece, f"ended without {wanted!r}: {seen[-200:]!r}"
                seen += piece

    def exec(self, container: str, *command: str, **more: object) -> str:
        """The id of a new exec; AttachStdout and AttachStderr are on."""
        body = {"Cmd": command, "AttachStdout": True, "AttachStderr": True, **more}
        answer = self.post(f"/v1.47/containers/{container}/exec", body)
        assert answer.status == 201, answer
        return str(answer.json["Id"])

    def run_exec(self, container: str, *command: str, **more: object) -> tuple[int, bytes]:
        """(exit code, its framed output)."""
        id = self.exec(container, *command, **more)
        stream = self.hijack(f"/v1.47/exec/{id}/start", {"Detach": False, "Tty": False})
        with closing(stream):
            data = stream.rest()
        return int(self.get(f"/v1.47/exec/{id}/json").json["ExitCode"]), data

    def stream_lines(self, path: str) -> Iterator[bytes]:
        """A chunked answer's pieces as they come."""
        with closing(_Connection(self.path)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            while piece := answer.read1(65536):
                yield piece
