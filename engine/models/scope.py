"""Namespace (containerd's term: scopes names, shares content) and Node (a machine of ours)."""

from __future__ import annotations

from django.db import models


class Namespace(models.Model):
    """Names of images, containers, networks and volumes are unique in one; a team owns one."""

    name = models.SlugField(max_length=40, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


class Node(models.Model):
    """A machine with one worker and one engined; so far there is one, `local`."""

    name = models.SlugField(max_length=40, unique=True, default="local")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name
