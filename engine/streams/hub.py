"""What streams need to know of containers: whether one runs, how it ended, that it is gone.

engined's supervisor calls `container_changed(uid)` from its thread when it has written a row.
Starts are made by workers, in other processes, so one query for all containers that are watched
runs every REFRESH_SECONDS besides; how many watch one makes no difference.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from django.db import DatabaseError

from engine.errors import NotFound
from engine.models import Container
from engine.services.orm import orm

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ContainerState:
    """A container's row, as far as streams care."""

    uid: str
    name: str
    running: bool
    state: str
    generation: int
    exit_code: int | None
    by_hand: bool
    failed: bool
    started_at: datetime | None
    tty: bool
    open_stdin: bool


class Watch:
    """One stream's view of one container: `state` (None: removed); `wake` is set when it
    changes, and may be an event that other things set too."""

    def __init__(self, state: ContainerState | None, wake: asyncio.Event) -> None:
        self.state = state
        self.wake = wake


class Hub:
    """All watches of this process. Lives on engined's streams loop."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()

    def container_changed(self, uid: str) -> None:
        """From any thread: the row of `uid` was written. Does nothing while nobody listens."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._mark, uid)

    def _mark(self, uid: str) -> None:
        if uid in self._watches:
            self._dirty.add(uid)
            self._wake.set()

    @contextmanager
    def watch(self, state: ContainerState, wake: asyncio.Event) -> Iterator[Watch]:
        watch = Watch(state, wake)
        self._watches.setdefault(state.uid, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[state.uid]
            watches.discard(watch)
            if not watches:
                del self._watches[state.uid]

    async def run(self) -> None:
        """Until cancelled: refresh what is watched, at once when told, else by the second."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    async with asyncio.timeout(REFRESH_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    self._dirty = set(self._watches)
                self._wake.clear()
                dirty, self._dirty = self._dirty, set()
                if dirty:
                    await self._refresh(dirty)
        finally:
            self._loop = None

    async def _refresh(self, uids: set[str]) -> None:
        try:
            states = await orm(load_states, uids)
        except DatabaseError:
            logger.exception("cannot read the containers that streams watch")
            return
        for uid in uids:
            state = states.get(uid)
            for watch in self._watches.get(uid, ()):
                if watch.state != state:
                    watch.state = state
                    watch.wake.set()


def load_states(uids: set[str]) -> dict[str, ContainerState]:
    """By uid; what is missing has no row."""
    found = Container.objects.filter(uid__in=uids).exclude(state=Container.State.REMOVING)
    return {container.uid: state_of(container) for container in found}


async def load_state(uid: str) -> ContainerState:
    """Raises NotFound."""
    found = (await orm(load_states, {uid})).get(uid)
    if found is None:
        raise NotFound(f"no such container: {uid[:12]}", kind="container", name=uid[:12])
    return found


def state_of(container: Container) -> ContainerState:
    return ContainerState(
        uid=container.uid,
        name=container.name,
        running=container.is_running,
        state=container.state,
        generation=container.generation,
        exit_code=container.exit_code,
        by_hand=container.stopped_by_hand,
        failed=container.error is not None,
        started_at=container.started_at,
        tty=container.tty,
        open_stdin=container.open_stdin,
    )


hub = Hub()
container_changed = hub.container_changed
