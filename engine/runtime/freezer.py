"""Stopping all processes of a cgroup where they are, and letting them go on (docker pause).

v2 has cgroup.freeze and says in cgroup.events when it is done; v1 has the freezer hierarchy,
which has to be told again while processes are being born. A frozen process takes no signal on v1
until it thaws, SIGKILL included.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from pathlib import Path

from engine.errors import EngineError
from engine.runtime.cgroups import hierarchies

_SECONDS = 10.0
# runc libcontainer/cgroups/fs/freezer.go: one being born may keep a group from becoming FROZEN for
# ever; letting all go on for a moment helps.
_AGAIN_SECONDS = 0.001
_TRIES = 20


def freeze(path: str) -> None:
    """All processes of the group and below it; returns when they stand. Idempotent.

    Raises EngineError when they do not within ten seconds (they go on then).
    """
    try:
        _set(path, frozen=True)
    except EngineError:
        with suppress(EngineError):
            thaw(path)
        raise


def thaw(path: str) -> None:
    """Idempotent; nothing happens where the group is gone."""
    _set(path, frozen=False)


def is_frozen(path: str) -> bool:
    """Whether it is, or is becoming so; False where the group is gone."""
    v1, v2 = _files(path)
    with suppress(OSError):
        if v1 is not None:
            return v1.read_text().strip() != "THAWED"
        if v2 is not None:
            return v2.read_text().strip() == "1"
    return False


def _set(path: str, *, frozen: bool) -> None:
    v1, v2 = _files(path)
    deadline = time.monotonic() + _SECONDS
    try:
        if v1 is not None:
            done = _set_v1(v1, "FROZEN" if frozen else "THAWED", deadline)
        elif v2 is not None:
            done = _set_v2(v2, "1" if frozen else "0", deadline)
        elif frozen:
            raise EngineError("this machine has no freezer", hint="mount the cgroup freezer")
        else:
            return
    except FileNotFoundError as error:
        if frozen:
            raise EngineError(f"no cgroup {path}", path=path) from error
        return
    if not done:
        raise EngineError(f"cannot {'freeze' if frozen else 'thaw'} the cgroup {path}", path=path)


def _set_v1(file: Path, wanted: str, deadline: float) -> bool:
    tries = 0
    while True:
        file.write_text(wanted)
        if file.read_text().strip() == wanted:
            return True
        if time.monotonic() > deadline:
            return False
        tries += 1
        if tries % _TRIES == 0 and wanted == "FROZEN":
            file.write_text("THAWED")
        time.sleep(_AGAIN_SECONDS)


def _set_v2(file: Path, wanted: str, deadline: float) -> bool:
    events = os.open(file.with_name("cgroup.events"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        poller = select.poll()
        poller.register(events, select.POLLPRI)
        file.write_text(wanted)
        while f"frozen {wanted}" not in os.pread(events, 4096, 0).decode().splitlines():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poller.poll(left * 1000)
        return True
    finally:
        os.close(events)


def _files(path: str) -> tuple[Path | None, Path | None]:
    """(freezer.state, None) where v1 has the freezer, else (None, cgroup.freeze)."""
    found = hierarchies()
    names = [name for name in path.split("/") if name]
    v1 = found.controllers.get("freezer")
    if v1 is not None:
        return v1.joinpath(*names, "freezer.state"), None
    if found.unified is not None:
        return None, found.unified.joinpath(*names, "cgroup.freeze")
    return None, None
