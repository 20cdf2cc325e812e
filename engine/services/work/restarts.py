"""Restart policies at work: an end that its policy undoes becomes RESTARTING, and engined's
Restarter starts it again when its wait is over.

What follows an end is written by whoever records it (`after_exit`, in the same transaction); the
Restarter looks at the rows when it is rung, when the next wait is over, and every few seconds, for
a worker's ring is not heard in engined. The policy is read again before the start: an update counts
from when it is made.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from django.db import close_old_connections, transaction
from django.utils import timezone

from engine import publish
from engine.containers import restarts
from engine.containers.layout import ContainerDir
from engine.containers.options import RestartPolicy
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput
from engine.events import Kind
from engine.models import Container
from engine.services.work.host import host

logger = logging.getLogger(__name__)
State = Container.State

_LOOK_SECONDS = 5.0
# As many starts at once as a machine does well.
_STARTERS = 4
_rung = threading.Event()
# How long each container's last wait was, by its id: an engined that begins anew begins anew here.
_waits: dict[str, float] = {}


def after_exit(container: Container, code: int, finished_at: datetime) -> dict[str, Any]:
    """What the row becomes after its end. Call `ring` once that is committed."""
    policy = _policy(container)
    if policy is None or not restarts.restarts(
        policy, code, container.restart_count, by_hand=container.stopped_by_hand
    ):
        _waits.pop(container.uid, None)
        return {"state": State.EXITED, "restart_at": None}
    began = container.started_at or finished_at
    seconds = restarts.wait_seconds(
        _waits.get(container.uid), (finished_at - began).total_seconds()
    )
    _waits[container.uid] = seconds
    return {
        "state": State.RESTARTING,
        "restart_at": finished_at + timedelta(seconds=seconds),
        "restart_count": container.restart_count + 1,
    }


def ring() -> None:
    _rung.set()


def by_hand(container: Container) -> bool:
    """Its end is wanted: no policy undoes it. True when it was between two starts and so has ended
    with this."""
    with ContainerDir(host().config, container.uid).lock(), transaction.atomic():
        rows = Container.objects.filter(pk=container.pk)
        rows.update(stopped_by_hand=True)
        ended = rows.filter(state=State.RESTARTING).update(state=State.EXITED, restart_at=None)
        if ended:
            publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)
    _waits.pop(container.uid, None)
    return bool(ended)


def bring_up() -> list[str]:
    """At engined's start: what is down and should be up waits for the Restarter. Only what has
    been started before; what ended while engined was away has been written down already."""
    found = []
    down = Container.objects.filter(state=State.EXITED, generation__gt=0)
    for container in down.select_related("namespace"):
        policy = _policy(container)
        if policy is None or not restarts.comes_up(policy, by_hand=container.stopped_by_hand):
            continue
        with transaction.atomic():
            Container.objects.filter(pk=container.pk, state=State.EXITED).update(
                state=State.RESTARTING, restart_at=timezone.now(), stopped_by_hand=False
            )
            publish.changed(container.namespace_id, Kind.CONTAINER, container.pk)
        found.append(f"container {container.name} is started: its policy is {policy.name}")
    ring()
    return found


def wanted(container: Container) -> bool:
    """Whether a container that waits for its start still is to be started, by its policy now."""
    policy = _policy(container)
    return container.state == State.RESTARTING and policy is not None and policy.name != "no"


def _policy(container: Container) -> RestartPolicy | None:
    """None for settings that cannot be read."""
    try:
        return ContainerSettings.from_json(container.settings).host.restart
    except InvalidInput:
        return None


class Restarter(threading.Thread):
    """engined's. `start(uid)` starts the container if it still waits to be; it is called from one
    of a few threads, for one container once at a time."""

    def __init__(self, start: Callable[[str], None]) -> None:
        super().__init__(name="restarter", daemon=True)
        self._start_again = start
        self._stopping = False
        self._starters = ThreadPoolExecutor(_STARTERS, thread_name_prefix="restart")
        self._busy: set[str] = set()

    def stop(self) -> None:
        self._stopping = True
        ring()
        self.join()
        self._starters.shutdown()

    def run(self) -> None:
        seconds = 0.0
        while not self._stopping:
            _rung.wait(seconds)
            _rung.clear()
            try:
                seconds = self._look()
            except Exception:  # the next look must come whatever this one met
                logger.exception("looking for containers to restart failed")
                seconds = _LOOK_SECONDS
            finally:
                close_old_connections()

    def _look(self) -> float:
        """Start what is due; seconds until the next is."""
        now = timezone.now()
        seconds = _LOOK_SECONDS
        waiting = Container.objects.filter(state=State.RESTARTING).values_list("uid", "restart_at")
        for uid, due in waiting:
            left = (due - now).total_seconds() if due else 0.0
            if left > 0:
                seconds = min(seconds, left)
            elif uid not in self._busy and not self._stopping:
                self._busy.add(uid)
                self._starters.submit(self._begin, uid)
        return seconds

    def _begin(self, uid: str) -> None:
        try:
            self._start_again(uid)
        except Exception:  # one that cannot be started must not end the starter
            logger.exception("restarting %s failed", uid[:12])
        finally:
            self._busy.discard(uid)
            close_old_connections()
            ring()
