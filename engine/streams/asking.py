"""engined asked from a view: blocking, up to the first frame of a download or a whole answer.

What a view finds out before its headers go can still become a page with a sentence. A download's
socket is then handed on to the event loop (`console.streamed`); nothing read here is ahead of it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

from engine.config import EngineConfig
from engine.errors import EngineError, revived
from engine.streams.client import socket_path
from engine.streams.framing import HEADER, MAX_PAYLOAD, FrameKind, pack_json, parse_json

# engined says that it is busy every few seconds; nothing for so long is a standstill.
SILENCE_SECONDS = 30.0
MOST_BYTES = 16 * 1024 * 1024


class Question:
    """One stream. Close it, unless its socket is handed on."""

    def __init__(self, config: EngineConfig, ticket: str, parameters: Mapping[str, object]) -> None:
        self._path = socket_path(config)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.socket.settimeout(SILENCE_SECONDS)
        try:
            self.socket.connect(str(self._path))
            self.socket.sendall(pack_json({**parameters, "t": "open", "ticket": ticket}))
        except OSError as error:
            self.socket.close()
            raise self._away() from error

    def begin(self) -> dict[str, Any]:
        """The first message that says something. Raises what engined refuses it for."""
        while True:
            kind, payload = self._frame()
            if kind is FrameKind.JSON and (message := parse_json(payload))["t"] != "busy":
                self._check(message)
                return message

    def document(self) -> dict[str, Any]:
        """The JSON that all BINARY frames make up; {} for none. Raises as `begin`."""
        parts: list[bytes] = []
        size = 0
        while True:
            kind, payload = self._frame()
            if kind is FrameKind.BINARY:
                parts.append(payload)
                size += len(payload)
                if size > MOST_BYTES:
                    raise EngineError(f"an answer of more than {MOST_BYTES} bytes")
                continue
            message = parse_json(payload)
            if message["t"] == "end":
                self._check(message)
                found: dict[str, Any] = json.loads(b"".join(parts) or b"{}")
                return found

    def close(self) -> None:
        self.socket.close()

    def _check(self, message: dict[str, Any]) -> None:
        if message["t"] != "end":
            return
        if message.get("error"):
            raise revived(message["error"])
        if message.get("code") != 1000:
            raise EngineError(
                f"engined ended the stream: {message.get('reason')}", hint="try again in a moment"
            )

    def _frame(self) -> tuple[FrameKind, bytes]:
        length, kind = HEADER.unpack(self._exactly(HEADER.size))
        if length > MAX_PAYLOAD:
            raise EngineError(f"a frame of {length} bytes is over {MAX_PAYLOAD}")
        return FrameKind(kind), self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        try:
            while len(data) < size:
                piece = self.socket.recv(size - len(data))
                if not piece:
                    raise ConnectionResetError("closed before its end")
                data += piece
        except OSError as error:
            raise self._away() from error
        return bytes(data)

    def _away(self) -> EngineError:
        return EngineError(
            f"engined does not answer at {self._path}", hint="it is starting, or has stopped"
        )
