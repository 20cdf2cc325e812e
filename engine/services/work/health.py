"""Health checks at work: engined's Prober runs each container's probe as an exec, in its time.

A start is told by engined's supervisor (`begun`); from then on a probe follows `interval` after the
one before, until the container's run is over. Results go to the row, changes of the status to the
events. Paused containers are left alone. What a result means is engine.containers.health's.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from django.db import close_old_connections, transaction
from django.utils import timezone

from engine import publish
from engine.containers import health
from engine.containers.exec import Exec, ExecRequest, Execs
from engine.containers.health import MAX_OUTPUT, TIMED_OUT, Probe, Result
from engine.containers.layout import ContainerDir
from engine.containers.logs import LogReader
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput, NotFound, QuaysideError, WrongState
from engine.events import Kind
from engine.models import Container
from engine.runtime.processes import wait
from engine.services.events import container_event
from engine.services.work.host import host

logger = logging.getLogger(__name__)
State = Container.State

_PROBERS = 16
# A start's row is committed a moment after its file is there.
_ROW_SECONDS = 0.2
_ROW_LOOKS = 50


class Prober(threading.Thread):
    """Waits for the next probe that is due; the probes run in a few threads beside."""

    def __init__(self) -> None:
        super().__init__(name="prober", daemon=True)
        self._due: list[tuple[float, int, str, int, int]] = []
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._stopping = False
        self._probers = ThreadPoolExecutor(_PROBERS, thread_name_prefix="probe")

    def begun(self, uid: str, generation: int) -> None:
        """A run of a container there is; called for those without a check too."""
        try:
            settings = ContainerSettings.from_json(
                ContainerDir(host().config, uid).settings.read_bytes()
            )
        except (FileNotFoundError, InvalidInput):
            return
        if Probe.of(settings.healthcheck) is not None:
            self._at(0.0, uid, generation, 1)

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self.join()
        self._probers.shutdown(cancel_futures=True)

    def run(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and (not self._due or self._due[0][0] > time.monotonic()):
                    left = self._due[0][0] - time.monotonic() if self._due else None
                    self._changed.wait(left)
                if self._stopping:
                    return
                _, _, uid, generation, looks = heapq.heappop(self._due)
            self._probers.submit(self._turn, uid, generation, looks)

    def _at(self, seconds: float, uid: str, generation: int, looks: int = 0) -> None:
        """In so many seconds; `looks` counts how often a row was looked for that is to come."""
        due = time.monotonic() + seconds
        with self._changed:
            heapq.heappush(self._due, (due, next(self._order), uid, generation, looks))
            self._changed.notify()

    def _turn(self, uid: str, generation: int, looks: int) -> None:
        try:
            self._take_turn(uid, generation, looks)
        except Exception:  # one check that cannot be done must not end the prober
            logger.exception("the health check of %s failed", uid[:12])
        finally:
            close_old_connections()

    def _take_turn(self, uid: str, generation: int, looks: int) -> None:
        container = Container.objects.select_related("image").filter(uid=uid).first()
        if container is None or container.generation > generation:
            return
        if container.generation < generation or not container.is_running:
            if 0 < looks < _ROW_LOOKS:
                self._at(_ROW_SECONDS, uid, generation, looks + 1)
            return
        probe = _probe(container)
        if probe is None or container.started_at is None:
            return
        status = (container.health or {}).get("status", health.STARTING)
        if looks:
            since = _since(container, timezone.now())
            self._at(max(0.0, probe.wait(status, since) - since), uid, generation)
            return
        if container.state == State.RUNNING:
            status = self._probe(container, generation, probe) or status
        since = _since(container, timezone.now())
        self._at(probe.wait(status, since), uid, generation)

    def _probe(self, container: Container, generation: int, probe: Probe) -> str:
        """Run it and write it down; the status now, "" when the run was over meanwhile."""
        result = run_probe(container.uid, probe)
        if result is None:
            return ""
        return record(container, generation, probe, result)


def _probe(container: Container) -> Probe | None:
    config: dict[str, Any] = (container.image.config if container.image else {}).get("config") or {}
    check = ContainerSettings.from_json(container.settings).healthcheck
    return Probe.of(check, config.get("Shell") or ())


def run_probe(uid: str, probe: Probe) -> Result | None:
    """None when the container has ended, or is paused, meanwhile."""
    begin = timezone.now()
    execs = Execs(host().config, host().runtime)
    try:
        made = execs.start(uid, ExecRequest(args=probe.argv))
    except (NotFound, WrongState):
        return None
    except QuaysideError as error:
        code = error.context.get("code", 126)
        return Result(begin, timezone.now(), int(code or 126), error.message)
    try:
        in_time = _ended(made, probe.timeout)
        output = _output(made)
        ended = made.exit() if in_time else None
        if ended is None:
            text = f"Health check exceeded timeout ({probe.timeout:g}s)"
            output = f"{text}: {output}" if output else text
            return Result(begin, timezone.now(), TIMED_OUT, output[:MAX_OUTPUT])
        return Result(begin, ended.finished_at, ended.code, output)
    finally:
        execs.remove(made)


def _ended(made: Exec, timeout: float) -> bool:
    supervisor = made.supervisor()
    descriptor = supervisor.open() if supervisor else None
    if descriptor is None:
        return True
    try:
        return wait(descriptor, timeout)
    finally:
        os.close(descriptor)


def _output(made: Exec) -> str:
    reader = LogReader(made.log)
    try:
        data, offset = b"", 0
        while len(data) < MAX_OUTPUT:
            lines, after, _ = reader.read_lines(offset)
            if not lines:
                break
            data += b"".join(line.text if line.partial else line.text + b"\n" for line in lines)
            offset = after
    finally:
        reader.close()
    return data[:MAX_OUTPUT].decode("utf-8", "replace")


def record(container: Container, generation: int, probe: Probe, result: Result) -> str:
    """The row with the result; watchers hear of it where something but the time has changed. The
    status; "" where this run is over."""
    with transaction.atomic():
        row = Container.objects.select_for_update().filter(pk=container.pk).first()
        if row is None or row.generation != generation or not row.is_running:
            return ""
        before = row.health or {"status": health.STARTING, "failing_streak": 0, "log": []}
        after = health.after(before, probe, result, _since(row, result.start))
        Container.objects.filter(pk=row.pk).update(health=after)
        status = str(after["status"])
        if status != before["status"]:
            container_event(row, f"health_status: {status}")
        if _told(before) != _told(after):
            publish.changed(row.namespace_id, Kind.CONTAINER, row.pk)
    return status


def _told(state: dict[str, Any]) -> tuple[object, ...]:
    last = state["log"][-1] if state["log"] else {}
    return state["status"], state["failing_streak"], last.get("exit_code"), last.get("output")


def _since(container: Container, at: datetime) -> float:
    return (at - container.started_at).total_seconds() if container.started_at else 0.0
