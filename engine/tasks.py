"""Celery tasks: each loads a row and calls one service (style, point 20).

They carry an operation's id and nothing else; what is to be done, by whom and whether it may be
is in rows, and is checked again here, on the side that root runs.
"""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.signals import worker_init, worker_shutting_down
from django.conf import settings

from engine.containers.memory import keep_in_memory
from engine.services import operations
from engine.services.work import builds, containers, images, networks, volumes


@worker_init.connect
def _begin(**_: Any) -> None:
    keep_in_memory(settings.ENGINE)


@worker_shutting_down.connect
def _leave(**_: Any) -> None:
    operations.leave()


@shared_task
def container_operation(operation_id: int) -> None:
    operations.run(operation_id, containers.handle)


@shared_task
def build_operation(operation_id: int) -> None:
    operations.run(operation_id, builds.handle)


@shared_task
def image_operation(operation_id: int) -> None:
    operations.run(operation_id, images.handle)


@shared_task
def volume_operation(operation_id: int) -> None:
    operations.run(operation_id, volumes.handle)


@shared_task
def network_operation(operation_id: int) -> None:
    operations.run(operation_id, networks.handle)
