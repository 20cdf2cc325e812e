"""Personal tokens for the Docker API over TLS; their permissions come with teams."""

from __future__ import annotations

from django.db import models


class ApiToken(models.Model):
    """Shown once when it is made; only its SHA-256 is kept."""

    user_id = models.BigIntegerField()
    name = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.name
