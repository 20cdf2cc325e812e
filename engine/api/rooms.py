"""Work on a container's files in a thread of its own, with bytes from and to a client.

A thread each, because one with volumes enters a mount namespace it cannot leave. Both directions
wait for the client; whoever keeps a container's lock that way is given up after STALL_SECONDS.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import Any, TypeVar

from aiohttp import web
from django.db import connections

from engine.containers.files import Root, is_mounted, opened_root
from engine.containers.layout import ContainerDir
from engine.containers.settings import ContainerSettings
from engine.models import Container
from engine.services.volumes import volumes_at
from engine.services.work.containers import lay_out
from engine.services.work.host import host

_T = TypeVar("_T")
# A container that does not run cannot start as long as its files are copied.
STALL_SECONDS = 60.0
_MOST = 32
_room = threading.BoundedSemaphore(_MOST)


class Client:
    """The client as the working thread sees it: calls raise ConnectionError once it is gone."""

    def __init__(self, request: web.Request) -> None:
        self._loop = asyncio.get_running_loop()
        self._request = request
        self._response: web.StreamResponse | None = None
        self._waiting: Future[Any] | None = None
        self._gone = False
        self._rest = b""
        self.patience: float | None = None

    @property
    def response(self) -> web.StreamResponse | None:
        """What was begun."""
        return self._response

    def begin(self, response: web.StreamResponse) -> None:
        """Send the head; `write` is its body."""
        self._response = response
        self._call(response.prepare(self._request))

    def write(self, data: bytes) -> None:
        assert self._response is not None
        self._call(self._response.write(data))

    def read(self, size: int, /) -> bytes:
        """Of the request's body, at most `size` bytes; none at its end."""
        if not self._rest:
            self._rest = self._call(self._request.content.readany())
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def leave(self) -> None:
        """From the loop: the client is gone."""
        self._gone = True
        if self._waiting is not None:
            self._waiting.cancel()

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._gone:
            work.close()
            raise ConnectionResetError("the client is gone")
        future: Future[_T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._waiting = future
        try:
            return future.result(self.patience)
        except CancelledError as error:
            raise ConnectionResetError("the client is gone") from error
        except TimeoutError as error:
            future.cancel()
            raise ConnectionResetError("the client does not move") from error
        finally:
            self._waiting = None


async def with_root(
    request: web.Request,
    container: Container,
    work: Callable[[Root, ContainerSettings, Client], _T],
    *,
    volumes: bool,
) -> tuple[_T, Client]:
    """What `work` gives, in a thread of its own. Raises what it raises."""
    loop = asyncio.get_running_loop()
    client = Client(request)
    done: asyncio.Future[_T] = loop.create_future()

    def run() -> None:
        try:
            with _room, _held(container, client) as there:
                settings = ContainerSettings.from_json(container.settings)
                found = volumes_at(container) if volumes else None
                with opened_root(
                    host().config, host().snapshots, settings, found, there=there
                ) as root:
                    result = work(root, settings, client)
        except BaseException as error:  # noqa: BLE001 - handed on to the loop
            _tell(loop, done, error=error)
        else:
            _tell(loop, done, result=result)
        finally:
            connections.close_all()  # this thread's own, which ends with it

    threading.Thread(target=run, name=f"files-{container.uid[:12]}", daemon=True).start()
    try:
        return await done, client
    except asyncio.CancelledError:
        client.leave()
        raise


@contextmanager
def _held(container: Container, client: Client) -> Iterator[bool]:
    """Whether its file system is there; where it is not, its lock is held, so that it stays so."""
    directory = ContainerDir(host().config, container.uid)
    if not is_mounted(directory):
        with directory.lock():
            if not directory.settings.exists():
                lay_out(container)
            if not is_mounted(directory):
                client.patience = STALL_SECONDS
                yield False
                return
    yield True


def _tell(
    loop: asyncio.AbstractEventLoop,
    done: asyncio.Future[_T],
    *,
    result: _T | None = None,
    error: BaseException | None = None,
) -> None:
    def tell() -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type] # given where there is no error

    loop.call_soon_threadsafe(tell)
