"""Who still reads a container's log holds a lock, and a `--rm` that would take it away waits a
moment: a program's last lines must not race with its removal.

The lock lies in HOME/run and not with the container, which may be no more than a row when a client
attaches. It dies with its holder.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.config import EngineConfig
from engine.containers.settings import check_id

# The first look again; each later one after twice as long, up to the second figure.
_LOOK_SECONDS, _LOOK_MOST = 0.001, 0.02
_PATIENCE = 2.0


def _path(config: EngineConfig, id: str) -> Path:
    return config.run_dir / "readers" / check_id(id)


@contextmanager
def reading(config: EngineConfig, id: str) -> Iterator[None]:
    """For as long as the block lasts; several may read at once."""
    path = _path(config, id)
    path.parent.mkdir(exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        # The last one takes the file along. Who opened it meanwhile holds one without a name,
        # and is not waited for: that costs a reader what it has without any of this.
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        os.close(descriptor)


def wait_read(config: EngineConfig, id: str, seconds: float = _PATIENCE) -> bool:
    """Wait until nobody reads it; False when somebody still does after `seconds`."""
    try:
        descriptor = os.open(_path(config, id), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    deadline = time.monotonic() + seconds
    pause = _LOOK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(pause)
                pause = min(2 * pause, _LOOK_MOST)
            else:
                return True
    finally:
        os.close(descriptor)
