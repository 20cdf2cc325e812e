"""Terminal sessions: rows that say who works where; the process itself is engined's."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from engine import publish
from engine.errors import InvalidInput, WrongState
from engine.events import Kind
from engine.models import Container, TerminalSession


def terminal_open(
    container: Container,
    *,
    kind: TerminalSession.Kind,
    owner_id: int,
    argv: tuple[str, ...] = (),
    user: str = "",
    tty: bool | None = None,
) -> TerminalSession:
    """An exec needs a running container; an attach may wait for the start to come.

    An exec without `argv` takes the best shell the image has. Raises WrongState, InvalidInput."""
    if kind == TerminalSession.Kind.EXEC and not container.is_running:
        raise WrongState(
            f"container {container.name} is not running", hint="start it first", name=container.name
        )
    if kind == TerminalSession.Kind.ATTACH and (argv or user):
        raise InvalidInput("attach takes neither a command nor a user", field="argv")
    with transaction.atomic():
        session = TerminalSession.objects.create(
            container=container,
            kind=kind,
            generation=container.generation,
            argv=list(argv),
            user=user,
            tty=container.tty if kind == TerminalSession.Kind.ATTACH else tty is not False,
            owner_id=owner_id,
        )
        publish.changed(container.namespace_id, Kind.TERMINAL, str(session.pk))
    return session


def terminal_end(session: TerminalSession, code: int | None, reason: str) -> None:
    """Idempotent: the first end counts."""
    with transaction.atomic():
        ended = (
            TerminalSession.objects.filter(pk=session.pk)
            .exclude(state=TerminalSession.State.ENDED)
            .update(
                state=TerminalSession.State.ENDED,
                exit_code=code,
                reason=reason[:200],
                ended_at=timezone.now(),
            )
        )
        if ended:
            publish.changed(session.container.namespace_id, Kind.TERMINAL, str(session.pk))
