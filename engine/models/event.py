"""What happened, in Docker's words: `docker events`, and later the activity feed."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from engine.models.scope import Namespace


class Event(models.Model):
    """Written in the transaction of what it tells of, so that neither is without the other.

    `type` container, image, volume, network, builder; `action` create, start, die, …;
    `actor_id` what `docker events` shows behind them; `attributes` text by text."""

    namespace = models.ForeignKey(Namespace, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(default=timezone.now)
    type = models.CharField(max_length=12)
    action = models.CharField(max_length=200)
    actor_id = models.CharField(max_length=512)
    attributes = models.JSONField(default=dict)

    class Meta:
        indexes = [
            models.Index(fields=["namespace", "id"]),
            models.Index(fields=["namespace", "actor_id"]),
            models.Index(fields=["at"]),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.action} {self.actor_id}"
