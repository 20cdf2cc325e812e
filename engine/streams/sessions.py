"""Terminal sessions as rows, read and written for engine.streams.terminals. All synchronous."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from engine import publish
from engine.config import EngineConfig
from engine.containers.attempts import Attempt
from engine.containers.layout import ContainerDir
from engine.errors import NotFound
from engine.events import Kind
from engine.models import Container, Operation, TerminalSession
from engine.services.terminals import terminal_end
from engine.streams.hub import ContainerState, state_of

State = TerminalSession.State
# A session whose page never came: the browser was closed on the way.
UNOPENED = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Session:
    """A row and its container's, as they were when a stream began."""

    id: str
    attach: bool
    generation: int
    argv: tuple[str, ...]
    user: str
    tty: bool
    state: str
    exit_code: int | None
    reason: str
    created_at: datetime
    container: ContainerState

    @property
    def uid(self) -> str:
        return self.container.uid


def load(id: str) -> Session:
    """Raises NotFound."""
    try:
        row = TerminalSession.objects.select_related("container").get(pk=UUID(id))
    except (TerminalSession.DoesNotExist, ValueError, ValidationError) as error:
        raise NotFound(f"no such terminal: {id}", kind="terminal", name=id) from error
    return _session(row)


def open_execs() -> list[Session]:
    """Execs that ran when engined ended."""
    rows = TerminalSession.objects.select_related("container").filter(
        kind=TerminalSession.Kind.EXEC, state=State.OPEN
    )
    return [_session(row) for row in rows]


def _session(row: TerminalSession) -> Session:
    return Session(
        id=str(row.pk),
        attach=row.kind == TerminalSession.Kind.ATTACH,
        generation=row.generation,
        argv=tuple(row.argv),
        user=row.user,
        tty=row.tty,
        state=row.state,
        exit_code=row.exit_code,
        reason=row.reason,
        created_at=row.created_at,
        container=state_of(row.container),
    )


def mark_open(id: str) -> None:
    """Idempotent."""
    with transaction.atomic():
        if TerminalSession.objects.filter(pk=id, state=State.NEW).update(state=State.OPEN):
            namespace = Container.objects.values_list("namespace_id", flat=True).get(
                terminals__pk=id
            )
            publish.changed(namespace, Kind.TERMINAL, id)


def end(id: str, code: int | None, reason: str) -> None:
    """Idempotent; nothing when the row went with its container."""
    row = TerminalSession.objects.select_related("container").filter(pk=id).first()
    if row is not None:
        terminal_end(row, code, reason)


def attach_generation(config: EngineConfig, session: Session) -> int:
    """Which start an attach is to: the one that ran when it was asked for, else the next."""
    if session.generation == 0:
        return 1
    attempt = Attempt(ContainerDir(config, session.uid).exits(session.generation), session.uid)
    # In this order: the next start takes it away, its end first.
    ended = attempt.exit()
    if not attempt.begun or (ended is not None and ended.finished_at < session.created_at):
        return session.generation + 1
    return session.generation


def start_refusal(uid: str, generation: int) -> str | None:
    """Why the start `generation` does not come; None while it may still come, or when it has
    come since the caller last looked."""
    kinds = (Operation.Kind.CONTAINER_START, Operation.Kind.CONTAINER_RESTART)
    container = Container.objects.filter(uid=uid).first()
    if container is None:
        return "the container was removed"
    if container.generation >= generation and container.error is None:
        return None
    if Operation.objects.open().filter(kind__in=kinds, target=str(container.pk)).exists():
        return None
    return str((container.error or {}).get("message", "nobody has started it"))


def overdue() -> None:
    """End sessions that nobody opened, and attaches whose container ended unseen."""
    rows = TerminalSession.objects.select_related("container").exclude(state=State.ENDED)
    for row in rows.filter(created_at__lt=timezone.now() - UNOPENED):
        container = row.container
        if row.state == State.NEW:
            terminal_end(row, None, "never-opened")
        elif row.kind == TerminalSession.Kind.ATTACH and (
            not container.is_running or container.generation > row.generation + 1
        ):
            terminal_end(row, container.exit_code, "exited")
