"""People and teams. A team owns an engine namespace; roles come with the teams issue."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models

from engine.models import Namespace


class User(AbstractUser):
    """`access_epoch` rises in the transaction of every change of what the person may do; open
    sockets are swept against it."""

    access_epoch = models.PositiveIntegerField(default=0)
    language = models.CharField(max_length=8, blank=True)


class Team(models.Model):
    """`slug` stands in addresses (/t/SLUG/)."""

    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=80)
    namespace = models.OneToOneField(Namespace, on_delete=models.PROTECT, related_name="team")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


class SetupCode(models.Model):
    """The one-time code for the first administrator: hashed, five tries, 30 minutes."""

    code_sha256 = models.CharField(max_length=64)
    tries_left = models.PositiveSmallIntegerField(default=5)
    expires_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"set-up code of {self.created_at:%Y-%m-%d %H:%M}"
