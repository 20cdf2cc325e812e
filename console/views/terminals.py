"""Terminals of a container: choosing one, and the page one works in.

The terminal page alone relaxes style-src: xterm.js puts style elements into the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from csp.constants import UNSAFE_INLINE
from csp.decorators import csp_update
from django.conf import settings
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext

from console.forms.containers import TerminalForm
from console.permissions import Permission
from console.views.base import TeamRequest, act, go, team_view
from console.views.container import container_of, container_page, leave_note
from engine.errors import NotFound, QuaysideError
from engine.events import Kind
from engine.models import Container, StreamTicket, TerminalSession
from engine.services.terminals import terminal_open
from engine.services.tickets import ticket_issue
from engine.streams.asking import Question


@team_view(Permission.EXEC)
def terminal_choice(request: TeamRequest, name: str) -> HttpResponse:
    container = container_of(request, name)
    return _choice(request, container, TerminalForm(initial={"kind": "exec"}))


@team_view(Permission.EXEC, methods=["GET", "HEAD", "POST"])
def terminal_new(request: TeamRequest, name: str) -> HttpResponse:
    """GET is a reload of a page that showed the form's mistakes."""
    container = container_of(request, name)
    if request.method != "POST":
        return redirect("container-terminal", team=request.team.slug, name=container.name)
    form = TerminalForm(request.POST)
    if form.is_valid():
        kind = TerminalSession.Kind(form.cleaned_data["kind"])
        try:
            session = terminal_open(
                container,
                kind=kind,
                owner_id=request.user.pk,
                argv=form.cleaned_data["command"] if kind == TerminalSession.Kind.EXEC else (),
                user=form.cleaned_data["user"] if kind == TerminalSession.Kind.EXEC else "",
            )
        except QuaysideError as error:
            form.refuse(error)
        else:
            return HttpResponseRedirect(
                reverse("terminal-session", args=[request.team.slug, container.name, session.pk])
            )
    return _choice(request, container, form, status=422)


def _choice(
    request: TeamRequest, container: Container, form: TerminalForm, status: int = 200
) -> HttpResponse:
    extra = {
        "form": form,
        "shells": _shells(request, container),
        "leave": leave_note(container),
    }
    context = container_page(request, container, "terminal", extra)
    return render(request, "containers/terminal.html", context, status=status)


@dataclass(frozen=True, slots=True)
class Shell:
    """`number` counts the execs of this start, so that it stays while others come and end; of
    sessions on the main process, which are all one terminal, the last stands for all."""

    session: TerminalSession
    number: int
    name: str


def _shells(request: TeamRequest, container: Container) -> list[Shell]:
    """Those that have not ended, the newest first."""
    found = container.terminals.filter(owner_id=request.user.pk, generation=container.generation)
    shells: list[Shell] = []
    main: Shell | None = None
    number = 0
    for session in found.order_by("created_at"):
        attach = session.kind == TerminalSession.Kind.ATTACH
        number += not attach
        if session.state == TerminalSession.State.ENDED:
            continue
        if attach:
            main = Shell(session, 0, gettext("Main process"))
        else:
            name = " ".join(session.argv) or gettext("Shell")
            shells.append(Shell(session, number, f"{name} #{number}"))
    return [*reversed(shells), *([main] if main else [])]


def _shell(request: TeamRequest, container: Container, id: UUID) -> Shell | None:
    return next((one for one in _shells(request, container) if one.session.pk == id), None)


@team_view(Permission.EXEC, methods=["GET", "HEAD", "POST"])
def terminal_finish(request: TeamRequest, name: str, session: UUID) -> HttpResponse:
    """Asks once, then ends a shell of one's own, whatever runs in it."""
    container = container_of(request, name)
    shell = _shell(request, container, session)
    back = reverse("container-terminal", args=[request.team.slug, container.name])
    if shell is None or not shell.number:
        return go(request, back)
    if request.method == "POST":
        return act(
            request,
            lambda: _finish(request, session),
            back=back,
            changed=[(Kind.TERMINAL, str(session))],
        )
    context = {"container": container, "shell": shell, "back": back}
    return render(request, "containers/finish.html", context)


def _finish(request: TeamRequest, session: UUID) -> None:
    """Raises EngineError when engined is away, or cannot end it."""
    ticket = ticket_issue(
        request.user.pk,
        request.session.session_key or "",
        StreamTicket.Action.TERMINAL,
        str(session),
    )
    question = Question(settings.ENGINE, ticket, {"finish": True})
    try:
        question.document()
    finally:
        question.close()


@csp_update({"style-src": [UNSAFE_INLINE]})
@team_view(Permission.EXEC)
def terminal_session(request: TeamRequest, name: str, session: UUID) -> HttpResponse:
    container = container_of(request, name)
    found = container.terminals.filter(pk=session).first()
    if found is None:
        raise NotFound(f"no such terminal: {session}", kind="terminal")
    extra = {
        "session": found,
        "shell": _shell(request, container, found.pk),
        "start": request.GET.get("start") == "1" and not container.is_running,
        "leave": leave_note(container) if found.kind == TerminalSession.Kind.ATTACH else "",
    }
    return render(
        request,
        "containers/session.html",
        container_page(request, container, "terminal", extra),
    )
