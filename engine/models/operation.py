"""Every command to the engine is a row, committed before its task is queued.

The row, not the queue, is the truth: a lost message is queued again by reconcile, a doubled one
finds the row claimed. `lease_until` and `owner` say who works on it and until when to believe so.
"""

from __future__ import annotations

from django.db import models

from engine.models.scope import Namespace


class OperationQuerySet(models.QuerySet["Operation"]):
    def open(self) -> OperationQuerySet:
        return self.filter(state__in=[Operation.State.QUEUED, Operation.State.RUNNING])

    def for_namespace(self, namespace: Namespace) -> OperationQuerySet:
        return self.filter(namespace=namespace)


class Operation(models.Model):
    class Kind(models.TextChoices):
        CONTAINER_CREATE = "container.create"
        CONTAINER_START = "container.start"
        CONTAINER_STOP = "container.stop"
        CONTAINER_KILL = "container.kill"
        CONTAINER_RESTART = "container.restart"
        CONTAINER_REMOVE = "container.remove"
        CONTAINER_PAUSE = "container.pause"
        CONTAINER_UNPAUSE = "container.unpause"
        CONTAINER_UPDATE = "container.update"
        CONTAINER_CONNECT = "container.connect"
        CONTAINER_DISCONNECT = "container.disconnect"
        CONTAINER_PRUNE = "container.prune"
        BUILD_RUN = "build.run"
        BUILD_PRUNE = "build.prune"
        IMAGE_PULL = "image.pull"
        IMAGE_PUSH = "image.push"
        IMAGE_LOAD = "image.load"
        IMAGE_IMPORT = "image.import"
        IMAGE_COMMIT = "image.commit"
        IMAGE_REMOVE = "image.remove"
        IMAGE_PRUNE = "image.prune"
        VOLUME_REMOVE = "volume.remove"
        VOLUME_PRUNE = "volume.prune"
        NETWORK_REMOVE = "network.remove"
        NETWORK_PRUNE = "network.prune"

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    kind = models.CharField(max_length=32, choices=Kind.choices)
    namespace = models.ForeignKey(Namespace, on_delete=models.CASCADE, related_name="operations")
    state = models.CharField(max_length=12, choices=State.choices, default=State.QUEUED)
    actor = models.CharField(max_length=200, blank=True, help_text="user:ID, local:NAME or system")
    target = models.CharField(max_length=100, blank=True, help_text="primary key of what it is on")
    args = models.JSONField(default=dict)
    progress = models.JSONField(default=dict)
    result = models.JSONField(default=dict)
    error = models.JSONField(null=True)
    attempt = models.PositiveIntegerField(default=0)
    owner = models.CharField(
        max_length=100, blank=True, help_text="node:pid:start time of the worker"
    )
    lease_until = models.DateTimeField(null=True)
    cancel_requested = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = OperationQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["state", "lease_until"]),
            models.Index(fields=["kind", "target"]),
            models.Index(fields=["namespace", "-created_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.target} ({self.state})"

    @property
    def is_open(self) -> bool:
        return self.state in (self.State.QUEUED, self.State.RUNNING)
