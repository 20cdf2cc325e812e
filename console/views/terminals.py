"""Terminals of a container: choosing one, and the page one works in.

The terminal page alone relaxes style-src: xterm.js puts style elements into the page.
"""

from __future__ import annotations

from uuid import UUID

from csp.constants import UNSAFE_INLINE
from csp.decorators import csp_update
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse

from console.forms.containers import TerminalForm
from console.permissions import Permission
from console.views.base import TeamRequest, team_view
from console.views.container import container_of, container_page, leave_note
from engine.errors import NotFound, QuaysideError
from engine.models import Container, TerminalSession
from engine.services.terminals import terminal_open


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
    mine = container.terminals.filter(owner_id=request.user.pk, generation=container.generation)
    extra = {
        "form": form,
        "sessions": list(
            mine.exclude(state=TerminalSession.State.ENDED).order_by("-created_at")[:10]
        ),
        "leave": leave_note(container),
    }
    context = container_page(request, container, "terminal", extra)
    return render(request, "containers/terminal.html", context, status=status)


@csp_update({"style-src": [UNSAFE_INLINE]})
@team_view(Permission.EXEC)
def terminal_session(request: TeamRequest, name: str, session: UUID) -> HttpResponse:
    container = container_of(request, name)
    found = container.terminals.filter(pk=session).first()
    if found is None:
        raise NotFound(f"no such terminal: {session}", kind="terminal")
    extra = {
        "session": found,
        "start": request.GET.get("start") == "1" and not container.is_running,
        "leave": leave_note(container) if found.kind == TerminalSession.Kind.ATTACH else "",
    }
    return render(
        request,
        "containers/session.html",
        container_page(request, container, "terminal", extra),
    )
