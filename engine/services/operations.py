"""Operations: submitting, claiming, keeping and ending them.

Submitting commits the row and then queues a task that carries nothing but its id. Claiming is
one UPDATE that only one worker can win. The owner string names the worker's process and its
start time, so that a claim of a process that is gone is recognised at once and not only when
its lease has run out.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import DatabaseError, close_old_connections, connections, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone
from kombu.exceptions import OperationalError
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from engine import publish
from engine.errors import Cancelled, EngineError, QuaysideError, UserError, WrongState
from engine.events import Kind
from engine.models import Namespace, Operation
from engine.runtime.processes import start_time

logger = logging.getLogger(__name__)

_OWNER = re.compile(r"[^:]+:(?P<pid>[0-9]{1,10}):(?P<started>[0-9]+)")
LEASE = timedelta(seconds=30)
MAX_ATTEMPTS = 3
# Done in engined itself while the queue is away (engine.services.work.keeper).
WITHOUT_QUEUE = frozenset(
    {
        Operation.Kind.CONTAINER_STOP,
        Operation.Kind.CONTAINER_KILL,
        Operation.Kind.CONTAINER_PAUSE,
        Operation.Kind.CONTAINER_UNPAUSE,
    }
)
# Long work that can be begun again: a process that ends gives it back rather than wait for it.
_GIVEN_BACK = frozenset({Operation.Kind.BUILD_RUN, Operation.Kind.IMAGE_PULL})
_leaving = threading.Event()

_TASKS = {
    "container": "engine.tasks.container_operation",
    "build": "engine.tasks.build_operation",
    "image": "engine.tasks.image_operation",
    "volume": "engine.tasks.volume_operation",
    "network": "engine.tasks.network_operation",
}


def submit(
    kind: Operation.Kind,
    namespace: Namespace,
    *,
    actor: str,
    target: str = "",
    args: dict[str, Any] | None = None,
) -> Operation:
    """Write the row; its task is queued once the surrounding transaction is committed."""
    operation = Operation.objects.create(
        kind=kind, namespace=namespace, actor=actor, target=target, args=args or {}
    )
    publish.changed(namespace.pk, Kind.OPERATION, operation.pk)
    transaction.on_commit(lambda: dispatch(operation))
    return operation


def dispatch(operation: Operation) -> bool:
    """Queue the operation's task; False when the broker is away (the keeper queues it later).

    Asked first whether it is there: kombu's own first try takes seconds to give up."""
    task = _TASKS[operation.kind.partition(".")[0]]
    try:
        _redis().ping()
        current_app.send_task(task, args=[operation.pk], retry=False)
    except (OperationalError, RedisError, OSError) as error:
        logger.warning("operation %s waits, the queue is away: %s", operation.pk, error)
        return False
    return True


def queue_answers() -> bool:
    """Whether what is submitted now would be taken; at most a second."""
    try:
        return bool(_redis().ping())
    except (RedisError, OSError):
        return False


@cache
def _redis() -> Redis:
    return redis_client()


def redis_client() -> Redis:
    """A client that answers or fails at once: nobody waits for a Redis that is away."""
    return Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=1,
        socket_connect_timeout=1,
        retry=Retry(NoBackoff(), 0),
    )


def cancel(operation: Operation) -> bool:
    """Ask an open operation to end; True for a queued one, which ends here and now. Raises
    WrongState."""
    with transaction.atomic():
        now = timezone.now()
        ended = Operation.objects.filter(pk=operation.pk, state=Operation.State.QUEUED).update(
            state=Operation.State.CANCELLED, finished_at=now, cancel_requested=True
        )
        if not ended:
            asked = Operation.objects.filter(pk=operation.pk, state=Operation.State.RUNNING).update(
                cancel_requested=True
            )
            if not asked:
                raise WrongState(f"operation {operation.pk} has ended already")
        publish.changed(operation.namespace_id, Kind.OPERATION, operation.pk)
    return bool(ended)


def own_name() -> str:
    """node:pid:start time (clock ticks since boot), unique for the life of the machine."""
    return f"local:{os.getpid()}:{start_time(os.getpid())}"


def owner_lives(owner: str) -> bool:
    named = _OWNER.fullmatch(owner)
    return named is not None and str(start_time(int(named["pid"]))) == named["started"]


def claim(operation_id: int) -> Operation | None:
    """Take a queued operation for this process; None when it is another's, ended or gone."""
    now = timezone.now()
    won = Operation.objects.filter(pk=operation_id, state=Operation.State.QUEUED).update(
        state=Operation.State.RUNNING,
        owner=own_name(),
        lease_until=now + LEASE,
        attempt=F("attempt") + 1,
        started_at=now,
    )
    if not won:
        return None
    operation = Operation.objects.select_related("namespace").get(pk=operation_id)
    publish.changed(operation.namespace_id, Kind.OPERATION, operation.pk)
    return operation


def leave() -> None:
    """This process ends: builds and pulls it works on end too and are queued again."""
    _leaving.set()


def leaving() -> bool:
    return _leaving.is_set()


def run(operation_id: int, handler: Callable[[Operation, threading.Event], dict[str, Any]]) -> None:
    """Claim, run `handler(operation, cancelled)` under a kept lease, and record how it ended.

    `handler` returns the row's result. A QuaysideError becomes the row's error; any other
    exception does too, and is logged with its traceback: it is ours.
    """
    close_old_connections()
    operation = claim(operation_id)
    if operation is None:
        return
    with _kept_lease(operation) as cancelled:
        try:
            result = handler(operation, cancelled)
        except Cancelled as error:
            if leaving():
                _give_back(operation)
            else:
                _end(operation, Operation.State.CANCELLED, error=error.as_dict())
        except UserError as error:
            logger.info("operation %s: %s", operation, error)
            _end(operation, Operation.State.FAILED, error=error.as_dict())
        except QuaysideError as error:
            logger.exception("operation %s failed", operation)
            _end(operation, Operation.State.FAILED, error=error.as_dict())
        except Exception as error:  # the row must say so, whatever it was
            logger.exception("operation %s failed", operation)
            ours = EngineError(
                f"{type(error).__name__}: {error}", hint="the engine's log has the details"
            )
            _end(operation, Operation.State.FAILED, error=ours.as_dict())
        else:
            _end(operation, Operation.State.DONE, result=result)


def _end(
    operation: Operation,
    state: Operation.State,
    *,
    result: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
) -> None:
    with transaction.atomic():
        _held(operation).update(
            state=state,
            result=result or {},
            error=error,
            lease_until=None,
            finished_at=timezone.now(),
        )
        publish.changed(operation.namespace_id, Kind.OPERATION, operation.pk)


def _give_back(operation: Operation) -> None:
    with transaction.atomic():
        _held(operation).update(state=Operation.State.QUEUED, owner="", lease_until=None)
        publish.changed(operation.namespace_id, Kind.OPERATION, operation.pk)


def _held(operation: Operation) -> QuerySet[Operation]:
    """The row as long as this claim of it holds, and not one that came after."""
    return Operation.objects.filter(
        pk=operation.pk,
        state=Operation.State.RUNNING,
        owner=operation.owner,
        attempt=operation.attempt,
    )


def report(operation: Operation, progress: dict[str, Any]) -> None:
    """Write the row's progress and tell watchers; callers keep this to a few a second."""
    with transaction.atomic():
        Operation.objects.filter(pk=operation.pk).update(progress=progress)
        publish.changed(operation.namespace_id, Kind.OPERATION, operation.pk)


@contextmanager
def _kept_lease(operation: Operation) -> Iterator[threading.Event]:
    """Renews the lease and watches for a wish to cancel, in a thread, while the work runs."""
    done = threading.Event()
    cancelled = threading.Event()

    def keep() -> None:
        renewed = timezone.now()
        while not done.wait(0.5):
            if leaving() and operation.kind in _GIVEN_BACK:
                cancelled.set()
            try:
                row = Operation.objects.filter(pk=operation.pk)
                if row.values_list("cancel_requested", flat=True).first():
                    cancelled.set()
                if timezone.now() - renewed > LEASE / 3:
                    _held(operation).update(lease_until=timezone.now() + LEASE)
                    renewed = timezone.now()
            except DatabaseError:  # the work goes on, and so must its lease
                logger.exception("the lease of operation %s was not renewed", operation.pk)
                close_old_connections()
        connections.close_all()  # this thread's own, which ends with it

    thread = threading.Thread(target=keep, name=f"lease-{operation.pk}", daemon=True)
    thread.start()
    try:
        yield cancelled
    finally:
        done.set()
        thread.join()


def requeue_lost(now: datetime | None = None) -> list[Operation]:
    """Give back what a dead process held or whose lease ran out; worker and engined only.

    After MAX_ATTEMPTS the operation fails instead, with a sentence that says so. Returns all of
    them with their new state; tasks of those queued again are not yet sent.
    """
    now = now or timezone.now()
    lost: list[Operation] = []
    for operation in Operation.objects.filter(state=Operation.State.RUNNING).select_related(
        "namespace"
    ):
        # A living owner may be late with its lease on a machine that has no time for it.
        if owner_lives(operation.owner) and (operation.lease_until or now) + LEASE >= now:
            continue
        held = _held(operation)
        if operation.attempt >= MAX_ATTEMPTS:
            error = EngineError(
                f"the worker was lost {operation.attempt} times while it worked on this",
                hint="look at the worker's log, then try again",
            )
            with transaction.atomic():
                done = held.update(
                    state=Operation.State.FAILED,
                    error=error.as_dict(),
                    lease_until=None,
                    finished_at=now,
                )
                publish.changed(operation.namespace_id, Kind.OPERATION, operation.pk)
            operation.state = Operation.State.FAILED
        else:
            done = held.update(state=Operation.State.QUEUED, owner="", lease_until=None)
            operation.state = Operation.State.QUEUED
        if done:
            lost.append(operation)
    return lost


def unsent(older_than: timedelta, now: datetime | None = None) -> list[Operation]:
    """Queued operations old enough that their message may never have reached the broker."""
    now = now or timezone.now()
    waiting = Operation.objects.filter(
        Q(state=Operation.State.QUEUED) & Q(created_at__lt=now - older_than)
    )
    return list(waiting.select_related("namespace").order_by("created_at"))
