"""What comes for a container while a start of it is on its way waits for that, as behind moby's
lock: its program may have spoken before its row says that it runs, and who heard it signals.

Which start that is stands in the operation's `behind` (engine.services.containers)."""

from __future__ import annotations

import time
from typing import Any

from engine.containers.layout import ContainerDir
from engine.errors import WrongState
from engine.models import Container, Operation
from engine.services import operations
from engine.services.lookup import load
from engine.services.work.host import host

# A start's message comes before its signal's. One that was lost is sent again within seconds.
_QUEUED_SECONDS = 10.0
_PAUSE_SECONDS = 0.005


def begun(container: Container, args: dict[str, Any]) -> Container:
    """As it is after the start in `args`, at once where there is none. Raises WrongState where it
    does not run then, NotFound where it went with its start."""
    if "behind" not in args or container.is_up:
        return container
    deadline = time.monotonic() + _QUEUED_SECONDS
    # A row may hold anything: nothing but a start of this one is waited for.
    start = Operation.objects.filter(
        pk=int(args["behind"]), target=str(container.pk), kind__in=_STARTS
    )
    while (state := start.values_list("state", flat=True).first()) in _OPEN:
        if state == Operation.State.RUNNING:
            # Held by the start nearly all of its time: this is where it is waited for.
            with ContainerDir(host().config, container.uid).lock():
                container = load(pk=container.pk)
            if container.is_up:
                return container
        elif time.monotonic() > deadline or not operations.queue_answers():
            break
        time.sleep(_PAUSE_SECONDS)
    container = load(pk=container.pk)
    if not container.is_up:
        raise WrongState(f"container {container.name} is not running", name=container.name)
    return container


_STARTS = (Operation.Kind.CONTAINER_START, Operation.Kind.CONTAINER_RESTART)
_OPEN = (Operation.State.QUEUED, Operation.State.RUNNING)
