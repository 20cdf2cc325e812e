"""Keeps operations moving when a worker or Redis is lost: one look a second.

- What a dead worker held, or whose lease ran out, is queued again (or fails after three times).
- What stays queued is sent again, less and less often: its message may have been lost with a
  Redis, or with a worker that had taken it and not begun.
- While Redis is away, stop, kill, pause and unpause are done here, in engined itself: nobody has
  to watch a container run on because a queue is down. Starts and builds wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from django.db import close_old_connections
from redis.exceptions import RedisError

from engine.models import Operation
from engine.services import operations
from engine.services.work import containers

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
_GRACE = timedelta(seconds=1)
_MOST_SECONDS = 60.0


class Keeper(threading.Thread):
    """`every` are further things to do now and then: (seconds between, what). `after_loss` is done
    when a worker was lost. Both run one after the other in a thread beside, and hold nothing up."""

    def __init__(
        self,
        every: tuple[tuple[float, Callable[[], object]], ...] = (),
        after_loss: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(name="keeper", daemon=True)
        self._ending = threading.Event()
        self._redis = operations.redis_client()
        self._redis_run = ""
        self._here = ThreadPoolExecutor(4, thread_name_prefix="here")
        self._taken: set[int] = set()
        # By operation: when to send it again, and how long after that once more.
        self._due: dict[int, tuple[float, float]] = {}
        self._every = every
        self._after_loss = after_loss
        self._last = [0.0 for _ in every]
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="chores")
        self._doing: set[Callable[[], object]] = set()

    def stop(self) -> None:
        self._ending.set()
        self.join()
        self._here.shutdown()
        self._beside.shutdown(cancel_futures=True)

    def run(self) -> None:
        clock = 0.0
        while not self._ending.wait(TICK_SECONDS):
            clock += TICK_SECONDS
            try:
                self.tick()
                self._now_and_then(clock)
            except Exception:  # tomorrow's tick must come whatever today's met
                logger.exception("the keeper's tick failed")
            finally:
                close_old_connections()

    def tick(self) -> None:
        """One look. Also called by tests."""
        lost = operations.requeue_lost()
        for operation in lost:
            logger.warning("operation %s lost its worker", operation)
            if operation.state == Operation.State.QUEUED:
                operations.dispatch(operation)
        if lost and self._after_loss is not None:
            self._do(self._after_loss)
        run = self._redis_run_id()
        if run != self._redis_run:
            # A new Redis knows nothing of what was queued in the one before.
            self._redis_run = run
            self._due.clear()
        waiting = operations.unsent(_GRACE)
        if run:
            self._send(waiting)
            return
        for operation in waiting:
            if operation.kind in operations.WITHOUT_QUEUE and operation.pk not in self._taken:
                self._taken.add(operation.pk)
                self._here.submit(self._run_here, operation.pk)

    def _send(self, waiting: list[Operation]) -> None:
        """A message too many finds its row claimed: harmless."""
        now = time.monotonic()
        before, self._due = self._due, {}
        for operation in waiting:
            due, wait = before.get(operation.pk, (now, TICK_SECONDS))
            if due <= now and operations.dispatch(operation):
                due, wait = now + wait, min(2 * wait, _MOST_SECONDS)
            self._due[operation.pk] = (due, wait)

    def _run_here(self, operation_id: int) -> None:
        try:
            operations.run(operation_id, containers.handle)
        finally:
            self._taken.discard(operation_id)
            close_old_connections()

    def _redis_run_id(self) -> str:
        """Changes with every start of Redis; empty while it is away."""
        try:
            return str(self._redis.info("server")["run_id"])
        except (RedisError, OSError):
            return ""

    def _now_and_then(self, clock: float) -> None:
        for index, (period, task) in enumerate(self._every):
            if clock - self._last[index] >= period:
                self._last[index] = clock
                self._do(task)

    def _do(self, task: Callable[[], object]) -> None:
        """Once at a time each; one that fails is tried again at its next turn."""
        if task in self._doing:
            return
        self._doing.add(task)

        def work() -> None:
            self._doing.discard(task)
            try:
                task()
            except Exception:
                logger.exception("%s failed", getattr(task, "__name__", task))
            finally:
                close_old_connections()

        self._beside.submit(work)
