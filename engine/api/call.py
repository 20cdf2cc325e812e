"""One request as handlers see it: who asks, in which namespace, by which API version, and its
parameters as Docker writes them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from engine.config import EngineConfig
from engine.errors import InvalidInput
from engine.models import Namespace

# JSON bodies of requests; archives and build contexts are streamed and have their own bounds.
MAX_JSON = 8 * 1024 * 1024
# As json: what is no JSON is an error, and not something made of it.
_PLAIN = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


def reply(value: object, status: int = 200) -> web.Response:
    """JSON as the CLI takes it: it compares the content type with `application/json` to the
    letter, and shows an error with a charset behind it raw."""
    return web.Response(
        body=encoded(value) + b"\n", status=status, headers={"Content-Type": "application/json"}
    )


def encoded(value: object) -> bytes:
    """orjson is ten times as fast where a list is long; it refuses what JSON can hold and UTF-8
    cannot, half a surrogate pair in a label or a file's name."""
    try:
        return orjson.dumps(value, option=_PLAIN)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Call:
    """`actor` is local:NAME or user:ID; `version` like (1, 47)."""

    request: web.Request
    config: EngineConfig
    namespace: Namespace
    actor: str
    version: tuple[int, int]

    def path(self, name: str) -> str:
        """A part of the address, decoded."""
        return self.request.match_info[name]

    def text(self, name: str, default: str = "") -> str:
        return self.request.query.get(name, default)

    def texts(self, name: str) -> list[str]:
        return self.request.query.getall(name, [])

    def flag(self, name: str, default: bool = False) -> bool:
        """As moby's BoolValue: empty, 0, no, false and none are false, anything else true."""
        if name not in self.request.query:
            return default
        return self.request.query[name].strip().lower() not in ("", "0", "no", "false", "none")

    def number(self, name: str, default: int | None = None) -> int | None:
        """Raises InvalidInput."""
        text = self.text(name)
        if not text:
            return default
        try:
            return int(text)
        except ValueError as error:
            raise InvalidInput(f'strconv.Atoi: parsing "{text}": invalid syntax') from error

    def filters(self) -> dict[str, list[str]]:
        """`filters` as {name: [values]}, also from {name: {value: true}}. Raises InvalidInput."""
        text = self.text("filters")
        if not text:
            return {}
        try:
            raw = json.loads(text)
            return {
                str(name): [
                    str(v)
                    for v in (
                        values
                        if isinstance(values, list)
                        else [value for value, on in values.items() if on]
                    )
                ]
                for name, values in raw.items()
            }
        except (ValueError, AttributeError, TypeError) as error:
            raise InvalidInput(f"invalid filter: {text:.200}") from error

    async def json(self) -> Mapping[str, Any]:
        """The body, an object; {} when there is none. Raises InvalidInput."""
        body = await self.request.content.read(MAX_JSON + 1) if self.request.can_read_body else b""
        while self.request.can_read_body and len(body) <= MAX_JSON:
            more = await self.request.content.read(MAX_JSON + 1 - len(body))
            if not more:
                break
            body += more
        if len(body) > MAX_JSON:
            raise InvalidInput("the request body is too large", hint=f"at most {MAX_JSON} bytes")
        if not body.strip():
            return {}
        try:
            value = json.loads(body)
        except ValueError as error:
            raise InvalidInput(f"invalid JSON: {error}") from error
        if not isinstance(value, dict):
            raise InvalidInput("invalid JSON: an object is expected")
        return value


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


class Routes:
    """A module's table: `@routes.get("/containers/json")`. Addresses carry no version; the server
    takes each with and without one. A name with slashes is `{name:.+}`."""

    def __init__(self) -> None:
        self.table: list[tuple[str, str, Handler]] = []

    def on(self, method: str, path: str) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            self.table.append((method, path, handler))
            return handler

        return add

    def get(self, path: str) -> Callable[[Handler], Handler]:
        return self.on("GET", path)

    def head(self, path: str) -> Callable[[Handler], Handler]:
        return self.on("HEAD", path)

    def post(self, path: str) -> Callable[[Handler], Handler]:
        return self.on("POST", path)

    def put(self, path: str) -> Callable[[Handler], Handler]:
        return self.on("PUT", path)

    def delete(self, path: str) -> Callable[[Handler], Handler]:
        return self.on("DELETE", path)
