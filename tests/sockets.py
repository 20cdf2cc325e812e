"""A signed-in person without a browser: pages by HTTP, our websockets by their own messages."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

from tests.site import PASSWORD, USERNAME

SECONDS = 20.0


@dataclass
class Socket:
    """One websocket. Reads are by condition: `until(…)` takes messages until it holds."""

    ws: aiohttp.ClientWebSocketResponse
    messages: list[dict[str, Any]] = field(default_factory=list)
    frames: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def bytes(self) -> bytes:
        return b"".join(data for _, data in self.frames)

    def of(self, kind: str) -> dict[str, Any] | None:
        """The last message of that kind."""
        return next((m for m in reversed(self.messages) if m["t"] == kind), None)

    async def send(self, **message: Any) -> None:
        await self.ws.send_str(json.dumps(message))

    async def type(self, data: bytes) -> None:
        await self.ws.send_bytes(data)

    async def take(self) -> bool:
        """One frame; False at the close."""
        message = await self.ws.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            self.messages.append(json.loads(message.data))
        elif message.type is aiohttp.WSMsgType.BINARY:
            (offset,) = struct.unpack(">Q", message.data[:8])
            self.frames.append((offset, message.data[8:]))
        else:
            return False
        return True

    async def until(self, holds: Callable[[Self], Any], seconds: float = SECONDS) -> Self:
        try:
            async with asyncio.timeout(seconds):
                while not holds(self):
                    if not await self.take():
                        break
        except TimeoutError:
            pass
        assert holds(self), (self.ws.close_code, self.messages[-5:], self.bytes[-500:])
        return self

    async def until_bytes(self, data: bytes, seconds: float = SECONDS) -> Self:
        return await self.until(lambda socket: data in socket.bytes, seconds)

    async def closed(self, seconds: float = SECONDS) -> int | None:
        """Read to the end; the close code."""
        async with asyncio.timeout(seconds):
            while await self.take():
                pass
        return self.ws.close_code


class Person:
    """Cookies of one browser."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        # Addresses are IPs here: aiohttp keeps no cookies for those unless told to.
        self.http = aiohttp.ClientSession(
            self.url, cookie_jar=aiohttp.CookieJar(unsafe=True), headers={"Referer": self.url}
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        # Closed transports go in the loop's next rounds, which may be its last.
        await asyncio.sleep(0.01)

    def cookie(self, part: str) -> str:
        return next(cookie.value for cookie in self.http.cookie_jar if part in cookie.key)

    async def sign_in(self, username: str = USERNAME, password: str = PASSWORD) -> Self:
        async with self.http.get("/sign-in/") as page:
            assert page.status == 200
        answer = await self.post("/sign-in/", username=username, password=password)
        assert answer == 302, answer
        return self

    async def post(self, path: str, **data: str) -> int:
        headers = {"X-CSRFToken": self.cookie("csrf")}
        async with self.http.post(
            path, data=data, headers=headers, allow_redirects=False
        ) as answer:
            return answer.status

    @asynccontextmanager
    async def socket(self, path: str, **headers: str) -> AsyncIterator[Socket]:
        """With the page's own Origin unless `headers` say another ("" for none)."""
        given = {"Origin": self.url, **headers}
        sent = {name: value for name, value in given.items() if value}
        async with self.http.ws_connect(path, headers=sent, max_msg_size=0) as ws:
            yield Socket(ws)


@asynccontextmanager
async def signed_in(url: str) -> AsyncIterator[Person]:
    async with Person(url) as person:
        yield await person.sign_in()
