"""Keeps operations moving when a worker or Redis is lost: one look a second.

- What a dead worker held, or whose lease ran out, is queued again (or fails after three times).
- What was queued while Redis was away, or lay in a Redis that died, is sent again.
- While Redis is away, stop and kill are done here, in engined itself: nobody has to watch a
  container run on because a queue is down. Starts and builds wait.
"""

from __future__ import annotations

import logging
import threading
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
_WITHOUT_REDIS = {Operation.Kind.CONTAINER_STOP, Operation.Kind.CONTAINER_KILL}


class Keeper(threading.Thread):
    """`every` are further things to do now and then: (seconds between, what)."""

    def __init__(self, every: tuple[tuple[float, Callable[[], object]], ...] = ()) -> None:
        super().__init__(name="keeper", daemon=True)
        self._ending = threading.Event()
        self._redis = operations.redis_client()
        self._redis_run = ""
        self._here = ThreadPoolExecutor(4, thread_name_prefix="here")
        self._taken: set[int] = set()
        self._every = every
        self._last = [0.0 for _ in every]

    def stop(self) -> None:
        self._ending.set()
        self.join()
        self._here.shutdown()

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
        for operation in operations.requeue_lost():
            logger.warning("operation %s lost its worker, queued again", operation)
            operations.dispatch(operation)
        run = self._redis_run_id()
        if run and run != self._redis_run:
            # A new Redis knows nothing of what was queued in the one before.
            for operation in operations.unsent(_GRACE):
                operations.dispatch(operation)
            self._redis_run = run
        elif not run:
            self._redis_run = ""
            for operation in operations.unsent(_GRACE):
                if operation.kind in _WITHOUT_REDIS and operation.pk not in self._taken:
                    self._taken.add(operation.pk)
                    self._here.submit(self._run_here, operation.pk)

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
                task()
