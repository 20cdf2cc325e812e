"""The execs that clients asked for, by id: kept in this process's memory, as in dockerd.

One that has ended is known for some minutes, so that its exit code can be asked for. The processes
themselves are conmon's and go on whoever ends (engine.containers.exec).
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field

from engine.containers.exec import ExecRequest
from engine.errors import Conflict, NotFound
from engine.models import Container

# moby forgets an ended one after five minutes (daemon/exec.go).
KEEP_SECONDS = 300.0
MOST = 10_000


@dataclass(slots=True)
class Asked:
    """One exec. `exit_code` None: not ended, or not started. `request` is what will run."""

    container: Container
    request: ExecRequest
    attach_stdin: bool
    attach_stdout: bool
    attach_stderr: bool
    privileged: bool
    detach_keys: str
    id: str = field(default_factory=lambda: secrets.token_hex(32))
    started: bool = False
    running: bool = False
    pid: int = 0
    exit_code: int | None = None
    size: tuple[int, int] | None = None
    up: asyncio.Event = field(default_factory=asyncio.Event)
    """It runs, or never will."""
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Its exit code is."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Its client has all it wanted: its files may go."""

    @property
    def folder_id(self) -> str:
        """Its name on disk, where 32 digits are enough."""
        return self.id[:32]

    def ended(self, code: int) -> None:
        self.running = False
        self.exit_code = code
        self.up.set()
        self.known.set()
        asyncio.get_running_loop().call_later(KEEP_SECONDS, _asked.pop, self.id, None)


_asked: dict[str, Asked] = {}


def add(asked: Asked) -> Asked:
    """Raises Conflict when there are too many that nobody starts or that do not end."""
    if len(_asked) >= MOST:
        unstarted = next((one for one in _asked.values() if not one.started), None)
        if unstarted is None:
            raise Conflict(f"{MOST} execs are running", hint="wait for some to end")
        del _asked[unstarted.id]
    _asked[asked.id] = asked
    return asked


def find(id: str, namespace_id: int) -> Asked:
    """Raises NotFound, also for one of another team."""
    found = _asked.get(id)
    if found is None or found.container.namespace_id != namespace_id:
        raise NotFound(f"no such exec instance: {id}", kind="exec", name=id)
    return found


def of_container(uid: str) -> list[str]:
    """Ids of those that run: what inspect shows as ExecIDs. From any thread."""
    return [one.id for one in list(_asked.values()) if one.container.uid == uid and one.running]
