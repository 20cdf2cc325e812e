"""Work on a container's files in a thread of its own, with bytes from and to an HTTP client.

The threads are `engine.services.work.rooms`'; both directions wait for the client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from aiohttp import web

from engine.containers.files import Root
from engine.containers.settings import ContainerSettings
from engine.models import Container
from engine.services.work import rooms

_T = TypeVar("_T")


class Client(rooms.Caller):
    """The client as the working thread sees it: calls raise ConnectionError once it is gone."""

    def __init__(self, request: web.Request) -> None:
        super().__init__()
        self._request = request
        self._response: web.StreamResponse | None = None
        self._rest = b""

    @property
    def response(self) -> web.StreamResponse | None:
        """What was begun."""
        return self._response

    def begin(self, response: web.StreamResponse) -> None:
        """Send the head; `write` is its body."""
        self._response = response
        self.call(response.prepare(self._request))

    def write(self, data: bytes) -> None:
        assert self._response is not None
        self.call(self._response.write(data))

    def read(self, size: int, /) -> bytes:
        """Of the request's body, at most `size` bytes; none at its end."""
        if not self._rest:
            self._rest = self.call(self._request.content.readany())
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


async def with_root(
    request: web.Request,
    container: Container,
    work: Callable[[Root, ContainerSettings, Client], _T],
    *,
    volumes: bool,
) -> tuple[_T, Client]:
    """What `work` gives, in a thread of its own. Raises what it raises."""
    client = Client(request)

    def run(root: Root, settings: ContainerSettings) -> _T:
        return work(root, settings, client)

    return await rooms.with_root(container, client, run, volumes=volumes), client
