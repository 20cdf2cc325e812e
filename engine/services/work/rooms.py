"""Work on a container's files in a thread of its own, beside an event loop that has the client.

A thread each, because one with volumes enters a mount namespace it cannot leave. What the work
asks of the loop waits for the client; whoever keeps a container's lock that way is given up after
STALL_SECONDS. What the bytes travel in is the caller's: HTTP in the API, frames in the streams.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from django.db import connections

from engine.containers.files import Root, is_mounted, opened_root
from engine.containers.layout import ContainerDir
from engine.containers.settings import ContainerSettings
from engine.containers.volumes import VolumeAt
from engine.errors import WrongState
from engine.models import Container
from engine.services.lookup import load
from engine.services.volumes import uses_of, volumes_at
from engine.services.work.host import host
from engine.services.work.starts import lay_out

_T = TypeVar("_T")
# A container that does not run cannot start as long as its files are copied.
STALL_SECONDS = 60.0
_MOST = 32
_room = threading.BoundedSemaphore(_MOST)


class Caller:
    """Whoever waits for the work, as its thread sees them. Made on their loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: Future[Any] | None = None
        self._gone = False
        self.patience: float | None = None

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run it on the loop and wait. Raises ConnectionResetError once the client is gone, or has
        not moved for `patience` seconds."""
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

    def check(self) -> None:
        """Between two steps that ask nothing of the client. Raises ConnectionResetError."""
        if self._gone:
            raise ConnectionResetError("the client is gone")

    def leave(self) -> None:
        """From the loop: the client is gone."""
        self._gone = True
        if self._waiting is not None:
            self._waiting.cancel()


async def with_root(
    container: Container,
    caller: Caller,
    work: Callable[[Root, ContainerSettings], _T],
    *,
    volumes: bool,
) -> _T:
    """What `work` gives, in a thread of its own. Raises what it raises."""

    settings = ContainerSettings.from_json(container.settings)

    def run() -> _T:
        found = volumes_at(uses_of(container)) if volumes else None
        with ExitStack() as held:
            return work(_root(held, container, caller, settings, found), settings)

    return await in_thread(caller, run, name=f"files-{container.uid[:12]}")


async def in_thread(caller: Caller, work: Callable[[], _T], *, name: str) -> _T:
    """The same for work that needs no root. At most _MOST at a time, the others wait."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def run() -> None:
        try:
            with _room:
                result = work()
        except BaseException as error:  # noqa: BLE001 - handed on to the loop
            _tell(loop, done, error=error)
        else:
            _tell(loop, done, result=result)
        finally:
            connections.close_all()  # this thread's own, which ends with it

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        return await done
    except asyncio.CancelledError:
        caller.leave()
        raise


def _root(
    held: ExitStack,
    container: Container,
    caller: Caller,
    settings: ContainerSettings,
    volumes: Mapping[str, VolumeAt] | None,
) -> Root:
    """Its files, which are let go of with `held`."""
    while True:
        there = held.enter_context(_held(container, caller))
        try:
            return held.enter_context(
                opened_root(host().config, host().snapshots, settings, volumes, there=there)
            )
        except WrongState:
            if not there:
                raise
            # It ended between the two looks: what it leaves is there once it is cleaned up.
            held.close()


@contextmanager
def _held(container: Container, caller: Caller) -> Iterator[bool]:
    """Whether its file system is there; where it is not, its lock is held, so that it stays so."""
    directory = ContainerDir(host().config, container.uid)
    if not is_mounted(directory):
        with directory.lock():
            if not directory.settings.exists():
                lay_out(load(pk=container.pk))
            if not is_mounted(directory):
                caller.patience = STALL_SECONDS
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
