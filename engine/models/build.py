"""Builds, the build cache's index, and uploads that become build contexts."""

from __future__ import annotations

import uuid

from django.db import models

from engine.models.image import Image
from engine.models.scope import Namespace, Node


class BuildQuerySet(models.QuerySet["Build"]):
    def for_namespace(self, namespace: Namespace) -> BuildQuerySet:
        return self.filter(namespace=namespace)

    def open(self) -> BuildQuerySet:
        return self.filter(state__in=[Build.State.QUEUED, Build.State.RUNNING])


class Upload(models.Model):
    """An archive that arrives in pieces: `received` of `size` bytes lie in uploads/ID.

    A folder is packed into a tar by the browser, so that every upload is one file."""

    class Format(models.TextChoices):
        TAR = "tar"
        ZIP = "zip"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    namespace = models.ForeignKey(Namespace, on_delete=models.CASCADE, related_name="uploads")
    user_id = models.BigIntegerField()
    filename = models.CharField(max_length=255, blank=True)
    format = models.CharField(max_length=3, choices=Format.choices)
    size = models.BigIntegerField(null=True, help_text="bytes; null while not known")
    received = models.BigIntegerField(default=0)
    complete = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.filename or str(self.id)


class Build(models.Model):
    """`number` counts within the namespace. The steps' truth is the log file (events, one JSON
    object a line); `steps` is its summary, written when the build ends."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    namespace = models.ForeignKey(Namespace, on_delete=models.CASCADE, related_name="builds")
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="builds")
    number = models.PositiveIntegerField()
    tag = models.CharField(max_length=512, blank=True, help_text="the name it gives, as typed")
    state = models.CharField(max_length=12, choices=State.choices, default=State.QUEUED)
    upload = models.ForeignKey(Upload, null=True, on_delete=models.SET_NULL, related_name="builds")
    again = models.ForeignKey(
        "self",
        null=True,
        on_delete=models.SET_NULL,
        related_name="rebuilds",
        help_text="the build whose source this one uses",
    )
    dockerfile = models.TextField(blank=True, help_text="the text that is built, once known")
    inline = models.BooleanField(
        default=False, help_text="the Dockerfile was given as text, not found in the context"
    )
    dockerfile_path = models.CharField(max_length=512, default="Dockerfile")
    args = models.JSONField(default=dict)
    target = models.CharField(max_length=128, blank=True)
    no_cache = models.BooleanField(default=False)
    pull = models.BooleanField(default=False)
    actor = models.CharField(max_length=200, blank=True)
    image = models.ForeignKey(Image, null=True, on_delete=models.SET_NULL, related_name="builds")
    steps = models.JSONField(default=list)
    error = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = BuildQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["namespace", "number"], name="build_number_once")
        ]
        indexes = [
            models.Index(fields=["namespace", "state"]),
            models.Index(fields=["namespace", "-created_at"]),
        ]

    def __str__(self) -> str:
        return f"#{self.number}"

    @property
    def is_open(self) -> bool:
        return self.state in (self.State.QUEUED, self.State.RUNNING)


class BuildCacheEntry(models.Model):
    """One remembered step. `key` finds it again; `position` (tag, stage, index) finds what stood
    there before, so that a miss can say what changed."""

    namespace = models.ForeignKey(Namespace, on_delete=models.CASCADE, related_name="cache")
    key = models.CharField(max_length=71)
    position = models.CharField(max_length=600, blank=True)
    entry = models.JSONField(help_text="engine.build.cache.CacheEntry as JSON")
    created_at = models.DateTimeField(auto_now_add=True)
    used_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["namespace", "key"], name="cache_key_once")]
        indexes = [models.Index(fields=["namespace", "position", "-used_at"])]

    def __str__(self) -> str:
        return self.key
