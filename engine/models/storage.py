"""Named and anonymous volumes, and which container has which."""

from __future__ import annotations

import uuid

from django.db import models

from engine.models.container import Container
from engine.models.scope import Namespace


class VolumeQuerySet(models.QuerySet["Volume"]):
    def for_namespace(self, namespace: Namespace) -> VolumeQuerySet:
        return self.filter(namespace=namespace)


class Volume(models.Model):
    """Its files lie in HOME/volumes/KEY/_data; the folder is named by `key` and not by the name,
    which may be any that Docker allows. An anonymous one goes with `rm -v` or `--rm`."""

    namespace = models.ForeignKey(Namespace, on_delete=models.CASCADE, related_name="volumes")
    key = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=255)
    anonymous = models.BooleanField(default=False)
    labels = models.JSONField(default=dict)
    options = models.JSONField(default=dict, help_text="of the local driver: type, device, o")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = VolumeQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["namespace", "name"], name="volume_once_a_namespace")
        ]

    def __str__(self) -> str:
        return self.name


class VolumeUse(models.Model):
    """A container has this volume, running or not: it cannot be removed meanwhile."""

    volume = models.ForeignKey(Volume, on_delete=models.PROTECT, related_name="uses")
    container = models.ForeignKey(Container, on_delete=models.CASCADE, related_name="volume_uses")
    destination = models.CharField(max_length=4096)
    read_only = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["container", "destination"], name="destination_once")
        ]

    def __str__(self) -> str:
        return f"{self.volume} at {self.destination}"
