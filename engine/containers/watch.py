"""Told when something in a folder changes: one inotify for a whole asyncio loop, no polling.

For followers of logs and waiters for exits. Leaves reading what changed to them: a wake says
"look again", never what.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.runtime import inotify
from engine.runtime.inotify import Inotify

_MASK = (
    inotify.MODIFY
    | inotify.CREATE
    | inotify.MOVED_TO
    | inotify.MOVED_FROM
    | inotify.DELETE
    | inotify.CLOSE_WRITE
    | inotify.DELETE_SELF
)


class FolderWatcher:
    """Make it inside a running loop; one serves all subscriptions of that loop. Close it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._inotify = Inotify()
        self._subscriptions: defaultdict[Path, set[Subscription]] = defaultdict(set)
        self._watches: dict[Path, int] = {}
        self._loop.add_reader(self._inotify.fileno(), self._ready)

    def subscribe(self, *folders: Path) -> Subscription:
        """Be woken by changes in any of `folders`, which must exist (FileNotFoundError).

        Subscribe first, then look: nothing can fall between.
        """
        subscription = Subscription(self, folders)
        try:
            for folder in folders:
                self._subscriptions[folder].add(subscription)
                self._watches[folder] = self._inotify.add(folder, _MASK | inotify.ONLYDIR)
        except OSError:
            subscription.close()
            raise
        return subscription

    def close(self) -> None:
        """Wakes everybody once more."""
        self._loop.remove_reader(self._inotify.fileno())
        self._inotify.close()
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription._wake()
        self._subscriptions.clear()

    def _drop(self, subscription: Subscription) -> None:
        for folder in subscription._folders:
            remaining = self._subscriptions.get(folder)
            if remaining is None:
                continue
            remaining.discard(subscription)
            if not remaining:
                del self._subscriptions[folder]
                watch = self._watches.pop(folder, None)
                if watch is not None:
                    self._inotify.remove(watch)

    def _ready(self) -> None:
        changed: set[Path] = set()
        for event in self._inotify.read():
            if event.mask & inotify.OVERFLOW:
                changed.update(self._subscriptions)
            else:
                changed.add(event.directory)
        for folder in changed:
            for subscription in self._subscriptions.get(folder, ()):
                subscription._wake()


class Subscription:
    """A flag that changes raise; close it, or use it as a context manager."""

    def __init__(self, watcher: FolderWatcher, folders: tuple[Path, ...]) -> None:
        self._watcher, self._folders = watcher, folders
        self._event = asyncio.Event()

    async def changed(self) -> None:
        """Return once something changed since the last return (or since the beginning)."""
        await self._event.wait()
        self._event.clear()

    def close(self) -> None:
        self._watcher._drop(self)

    def _wake(self) -> None:
        self._event.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@asynccontextmanager
async def waking(watcher: FolderWatcher, folder: Path, wake: asyncio.Event) -> AsyncIterator[None]:
    """Set `wake` whenever something in `folder` changes, from when the folder exists on."""

    async def relay() -> None:
        while True:
            subscription, at = _subscribe(watcher, folder)
            with subscription:
                wake.set()  # what came between its making and now
                # On its way there each new folder is nearer; once there it stays.
                while at == folder or _nearest(folder) == at:
                    await subscription.changed()
                    wake.set()

    task = asyncio.create_task(relay())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _subscribe(watcher: FolderWatcher, folder: Path) -> tuple[Subscription, Path]:
    """On the folder, or on the nearest above it that exists."""
    while True:
        nearest = _nearest(folder)
        try:
            return watcher.subscribe(nearest), nearest
        except FileNotFoundError:
            continue  # removed since


def _nearest(folder: Path) -> Path:
    return next(one for one in (folder, *folder.parents) if one.is_dir())
