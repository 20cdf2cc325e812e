"""Waiting in an asyncio loop for the end of one start, or of an exec, without polling.

The exit folder is watched for conmon's word and conmon itself by a pidfd: whichever comes first.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from engine.containers.attempts import Attempt, Exit
from engine.containers.watch import FolderWatcher, waking
from engine.runtime.processes import ProcessRef


@dataclass(frozen=True, slots=True)
class End:
    """`exit` None: conmon died without a word, or its files went before they could be read; with
    `started` False it never came to run as far as was seen."""

    exit: Exit | None
    started: bool


async def until_end(
    watcher: FolderWatcher,
    attempt: Attempt,
    *,
    coming: bool = False,
    started: Callable[[], None] = lambda: None,
    dying: Callable[[], None] = lambda: None,
) -> End:
    """Return once `attempt` is over. `coming`: it may not have begun yet, and is waited for.

    `started` is called once it is about to run (conmon can be attached to), `dying` when its first
    process has ended, before conmon says so: let go of conmon then.
    """
    wake = asyncio.Event()
    seen = False
    async with waking(watcher, attempt.folder, wake):
        while (exit := attempt.exit()) is None:
            if attempt.started() is None:
                if attempt.begun:
                    coming = False
                elif not coming:
                    break  # it failed, or was cleaned up with its container
                await wake.wait()
                wake.clear()
                continue
            if not seen:
                seen = True
                started()
            conmon_ref, init_ref = attempt.processes()
            with _ended(init_ref, dying), _ended(conmon_ref, wake.set):
                if conmon_ref is None or not conmon_ref.alive():
                    # It writes the code before it ends: one more look decides.
                    exit = attempt.exit()
                    break
                await wake.wait()
                wake.clear()
    return End(exit, seen or exit is not None)


@contextmanager
def _ended(process: ProcessRef | None, then: Callable[[], None]) -> Iterator[None]:
    """Call `then` once `process` has ended, while in the block."""
    descriptor = process.open() if process else None
    loop = asyncio.get_running_loop()
    if descriptor is not None:
        loop.add_reader(descriptor, _once, loop, descriptor, then)
    try:
        yield
    finally:
        if descriptor is not None:
            loop.remove_reader(descriptor)
            os.close(descriptor)


def _once(loop: asyncio.AbstractEventLoop, descriptor: int, then: Callable[[], None]) -> None:
    """A pidfd stays readable: told once is enough."""
    loop.remove_reader(descriptor)
    then()
