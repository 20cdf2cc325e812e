"""Tickets that let web take one stream from engined, and terminal sessions."""

from __future__ import annotations

import uuid

from django.db import models

from engine.models.container import Container


class StreamTicket(models.Model):
    """One use, 30 s, bound to a user, a session, a target and an action. Only its SHA-256 is
    kept; engined redeems it by an UPDATE that only one caller can win."""

    class Action(models.TextChoices):
        LOGS = "logs"
        BUILD = "build"
        TERMINAL = "terminal"
        IMAGE = "image"  # as an archive; its target is the primary key
        STATS = "stats"
        FILES = "files"  # of a container, to be read
        PUT = "put"  # files into a container

    token_sha256 = models.CharField(max_length=64, unique=True)
    user_id = models.BigIntegerField()
    session_sha256 = models.CharField(max_length=64)
    action = models.CharField(max_length=10, choices=Action.choices)
    target = models.CharField(max_length=100, help_text="id of the action's object: uid or key")
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.action} {self.target}"


class TerminalSession(models.Model):
    """A terminal on a container: on its main process (attach) or on a process of its own (exec).

    An exec's process starts with the first resize, so that its size is right from the first
    byte; it lives in engined and conmon, not in the browser's socket."""

    class Kind(models.TextChoices):
        ATTACH = "attach"
        EXEC = "exec"

    class State(models.TextChoices):
        NEW = "new"
        OPEN = "open"
        ENDED = "ended"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    container = models.ForeignKey(Container, on_delete=models.CASCADE, related_name="terminals")
    kind = models.CharField(max_length=6, choices=Kind.choices)
    generation = models.PositiveIntegerField(help_text="the container's when the session began")
    argv = models.JSONField(default=list, help_text="exec only; empty: the best shell there is")
    user = models.CharField(max_length=100, blank=True, help_text="exec only: as whom")
    tty = models.BooleanField(default=True)
    state = models.CharField(max_length=6, choices=State.choices, default=State.NEW)
    owner_id = models.BigIntegerField(help_text="the user who opened it")
    exit_code = models.IntegerField(null=True)
    reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return str(self.id)
