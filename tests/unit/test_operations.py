"""Operations: one claim, a lease that is kept, what becomes of a lost worker's work."""

from __future__ import annotations

import subprocess
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from engine.errors import Cancelled, EngineError, NotFound, WrongState
from engine.models import Namespace, Operation
from engine.runtime.processes import start_time
from engine.services import operations

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def namespace() -> Namespace:
    return Namespace.objects.create(name="team")


def submit(namespace: Namespace) -> Operation:
    return operations.submit(
        Operation.Kind.CONTAINER_STOP, namespace, actor="user:1", target="7", args={"grace": 1}
    )


def test_a_queued_operation_is_claimed_once(namespace: Namespace) -> None:
    operation = submit(namespace)
    won = operations.claim(operation.pk)
    assert won is not None
    assert won.state == Operation.State.RUNNING
    assert won.attempt == 1
    assert operations.owner_lives(won.owner)
    assert operations.claim(operation.pk) is None


def test_without_a_broker_the_row_waits(namespace: Namespace) -> None:
    """The tests' home has no Redis: submitting must not fail, the row is the truth."""
    operation = submit(namespace)
    operation.refresh_from_db()
    assert operation.state == Operation.State.QUEUED
    assert operations.dispatch(operation) is False
    assert operations.unsent(timedelta(0)) == [operation]


def test_what_the_handler_returns_is_the_result(namespace: Namespace) -> None:
    operation = submit(namespace)
    operations.run(operation.pk, lambda op, cancelled: {"seen": op.args["grace"]})
    operation.refresh_from_db()
    assert operation.state == Operation.State.DONE
    assert operation.result == {"seen": 1}
    assert operation.finished_at is not None


@pytest.mark.parametrize(
    ("error", "state", "id"),
    [
        (NotFound("no such container: web", kind="container"), "failed", "not-found"),
        (EngineError("runc refused"), "failed", "engine"),
        (RuntimeError("a bug"), "failed", "engine"),
        (Cancelled("asked to"), "cancelled", "cancelled"),
    ],
)
def test_every_way_to_fail_ends_the_row(
    namespace: Namespace, error: Exception, state: str, id: str
) -> None:
    def handler(op: Operation, cancelled: threading.Event) -> dict[str, Any]:
        raise error

    operation = submit(namespace)
    operations.run(operation.pk, handler)
    operation.refresh_from_db()
    assert operation.state == state
    assert operation.error is not None
    assert operation.error["id"] == id


def test_a_wish_to_cancel_reaches_the_handler(namespace: Namespace) -> None:
    operation = submit(namespace)
    running = threading.Event()

    def handler(op: Operation, cancelled: threading.Event) -> dict[str, Any]:
        running.set()
        assert cancelled.wait(5)
        raise Cancelled("asked to")

    def worker() -> None:
        operations.run(operation.pk, handler)
        connections.close_all()

    thread = threading.Thread(target=worker)
    thread.start()
    assert running.wait(5)
    operations.cancel(operation)
    thread.join(5)
    operation.refresh_from_db()
    assert operation.state == Operation.State.CANCELLED


def test_a_queued_one_is_cancelled_at_once_and_an_ended_one_not(namespace: Namespace) -> None:
    operation = submit(namespace)
    operations.cancel(operation)
    operation.refresh_from_db()
    assert operation.state == Operation.State.CANCELLED
    with pytest.raises(WrongState):
        operations.cancel(operation)


def test_a_dead_worker_s_operation_is_queued_again_then_fails(namespace: Namespace) -> None:
    operation = submit(namespace)
    for attempt in range(1, operations.MAX_ATTEMPTS + 1):
        claimed = operations.claim(operation.pk)
        assert claimed is not None
        assert claimed.attempt == attempt
        Operation.objects.filter(pk=operation.pk).update(owner=_owner_that_died())
        (lost,) = operations.requeue_lost()
        assert lost == operation
        assert (lost.state == Operation.State.QUEUED) == (attempt < operations.MAX_ATTEMPTS)
    operation.refresh_from_db()
    assert operation.state == Operation.State.FAILED
    assert operation.error is not None
    assert "lost" in operation.error["message"]


def test_a_living_worker_keeps_its_lease_and_a_stuck_one_loses_it(namespace: Namespace) -> None:
    operation = submit(namespace)
    operations.claim(operation.pk)
    assert operations.requeue_lost() == []
    assert operations.requeue_lost(timezone.now() + 2 * operations.LEASE) == [operation]


def _owner_that_died() -> str:
    process = subprocess.Popen(["sleep", "60"])
    owner = f"local:{process.pid}:{start_time(process.pid)}"
    assert operations.owner_lives(owner)
    process.kill()
    process.wait()
    time.sleep(0)
    return owner
