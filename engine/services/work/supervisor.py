"""Sees containers end, within milliseconds, and writes it down.

conmon leaves an exit file in the attempt's own directory (`exits/CONTAINER.GENERATION/`); inotify
tells of it. pidfds of conmon and of the container's first process tell of a supervisor that
died without leaving one. One thread waits on all of these at once and does nothing else; the
recording runs in a few more, so that one slow clean-up holds up no other exit.

Everything it knows can be read again from disk: a supervisor that is killed and started anew
looks at every attempt's directory once and has lost nothing.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from django.db import close_old_connections, connections

from engine.containers.attempts import Attempt
from engine.runtime import inotify
from engine.runtime.processes import ProcessRef

logger = logging.getLogger(__name__)

# A clean-up may wait for the network's lock while reconcile looks; others are recorded meanwhile.
_RECORDERS = 16
# Most of what fails was in the middle of going away; the next reconcile is up to a minute off.
_TRIES = 2
# An exit is small work that somebody waits for: it goes before builds on a busy machine.
_NICE = -10
_T = TypeVar("_T")


class Supervisor(threading.Thread):
    """`record(uid, generation)` is called once for each attempt seen to have ended, from one of
    a few threads; it must be idempotent. `told(uid)` follows it, for open streams. `begun(uid,
    generation)` is called for each attempt seen to run, in the thread that waits: it must not."""

    def __init__(
        self,
        exits: Path,
        record: Callable[[str, int], None],
        told: Callable[[str], None] = lambda uid: None,
        begun: Callable[[str, int], None] = lambda uid, generation: None,
    ) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._exits = exits
        self._record = record
        self._told = told
        self._begun = begun
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._recorders = ThreadPoolExecutor(_RECORDERS, thread_name_prefix="exit")
        self._watched: dict[str, int] = {}
        self._handed_over: set[str] = set()
        self._pidfds: dict[int, tuple[str, ProcessRef | None]] = {}
        self._poller = select.epoll()

    def stop(self) -> None:
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self.join()
        together = threading.Barrier(_RECORDERS)
        for _ in range(_RECORDERS):
            self._recorders.submit(_hang_up, together)
        self._recorders.shutdown()

    def run(self) -> None:
        with suppress(PermissionError):
            # This thread's, and the recorders' that it starts.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        with inotify.Inotify() as watch:
            self._watch = watch
            self._poller.register(watch.fileno(), select.EPOLLIN)
            self._poller.register(self._wake, select.EPOLLIN)
            watch.add(self._exits, inotify.CREATE | inotify.MOVED_TO | inotify.ONLYDIR)
            self._scan()
            while not self._stopping:
                for descriptor, _ in self._poller.poll():
                    if descriptor == watch.fileno():
                        for event in watch.read():
                            self._guarded(self._event, event)
                    elif descriptor in self._pidfds:
                        self._guarded(self._supervisor_gone, descriptor)
        for descriptor in list(self._pidfds):
            self._drop(descriptor)
        self._poller.close()

    def _guarded(self, look: Callable[[_T], None], at: _T) -> None:
        try:
            look(at)
        except Exception:  # one attempt that cannot be read must not hide all others
            logger.exception("the supervisor failed at %s; reconcile tries again", at)

    def _scan(self) -> None:
        """Every attempt there is: at the start, and when the kernel dropped events."""
        self._watched.clear()
        present = sorted(attempt.name for attempt in self._exits.iterdir())
        self._handed_over.intersection_update(present)
        for name in present:
            self._guarded(self._attempt, name)

    def _event(self, event: inotify.Event) -> None:
        if event.mask & inotify.OVERFLOW:
            self._scan()
        elif event.directory == self._exits:
            self._attempt(event.name)
        elif event.mask & inotify.IGNORED:
            self._watched.pop(event.directory.name, None)
            self._handed_over.discard(event.directory.name)
        else:
            self._look(event.directory, event.name)

    def _attempt(self, name: str) -> None:
        """A new attempt's directory: watch it, then look at what is already there."""
        if name.startswith("exec.") or name in self._watched:
            return
        directory = self._exits / name
        if (directory / "finished.json").exists():
            return
        try:
            self._watched[name] = self._watch.add(directory, inotify.MOVED_TO | inotify.CLOSE_WRITE)
            present = [entry.name for entry in directory.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            self._watched.pop(name, None)
            return
        for file in present:
            self._look(directory, file)

    def _look(self, directory: Path, file: str) -> None:
        uid, _, generation = directory.name.partition(".")
        if file == uid:
            self._ended(uid, int(generation))
        elif file == "started.json":
            self._hold(directory)

    def _hold(self, directory: Path) -> None:
        """Open pidfds of conmon and of the first process; one that is gone already counts too."""
        conmon, init = Attempt(directory, directory.name.partition(".")[0]).processes()
        descriptor = conmon.open() if conmon else None
        if descriptor is None:
            self._lost(directory.name, init)
            return
        self._pidfds[descriptor] = (directory.name, init)
        self._poller.register(descriptor, select.EPOLLIN)
        uid, _, generation = directory.name.partition(".")
        self._begun(uid, int(generation))

    def _supervisor_gone(self, descriptor: int) -> None:
        name, init = self._pidfds[descriptor]
        self._drop(descriptor)
        self._lost(name, init)

    def _lost(self, name: str, init: ProcessRef | None) -> None:
        """conmon has ended. After an exit that is as it should be; otherwise its container has
        nobody left who would see its end or read its output, so it ends too."""
        uid, _, generation = name.partition(".")
        if Attempt(self._exits / name, uid).exit() is None:
            logger.error("the supervisor of container %s was lost", uid[:12])
            if init is not None:
                init.send(signal.SIGKILL)
        self._ended(uid, int(generation))

    def _drop(self, descriptor: int) -> None:
        self._poller.unregister(descriptor)
        self._pidfds.pop(descriptor)
        os.close(descriptor)

    def _ended(self, uid: str, generation: int) -> None:
        """The exit file says so, then conmon's end: the second would wait for the first's clean-up
        and hold up a recorder."""
        name = f"{uid}.{generation}"
        if name in self._handed_over:
            return
        self._handed_over.add(name)
        self._recorders.submit(self._write_down, uid, generation)

    def _write_down(self, uid: str, generation: int) -> None:
        for _ in range(_TRIES):
            try:
                self._record(uid, generation)
                break
            except Exception:  # one exit that cannot be recorded must not end the recorder
                logger.exception("recording the exit of %s failed; reconcile tries again", uid[:12])
            finally:
                close_old_connections()
        self._told(uid)


def _hang_up(together: threading.Barrier) -> None:
    """One of these runs in each recorder, for none ends before all have begun."""
    together.wait()
    connections.close_all()
