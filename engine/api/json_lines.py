"""Answers that are JSON lines while something goes on: pull, push, load, import.

Until the first line an error is a plain answer with its status; afterwards it is a line, as dockerd
does it: {"errorDetail": {"message"}, "error"}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from engine.api.call import Call


class JsonLines:
    """`gone` tells whether the client has left."""

    def __init__(self, call: Call) -> None:
        self._request = call.request
        self._response: web.StreamResponse | None = None

    @property
    def begun(self) -> bool:
        return self._response is not None

    @property
    def gone(self) -> bool:
        transport = self._request.transport
        return transport is None or transport.is_closing()

    async def send(self, *lines: Mapping[str, Any]) -> None:
        """Raises ConnectionError when the client has gone."""
        if not lines:
            return
        if self._response is None:
            self._response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await self._response.prepare(self._request)
        data = b"".join(
            json.dumps(line, separators=(",", ":")).encode() + b"\r\n" for line in lines
        )
        await self._response.write(data)

    async def fail(self, message: str) -> None:
        await self.send({"errorDetail": {"message": message}, "error": message})

    async def end(self) -> web.StreamResponse:
        """What the handler returns; an empty 200 where nothing was sent."""
        await self.send_nothing()
        assert self._response is not None
        await self._response.write_eof()
        return self._response

    async def send_nothing(self) -> None:
        """Begin the answer, so that the client knows that it is heard."""
        if self._response is None:
            self._response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await self._response.prepare(self._request)
