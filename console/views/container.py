"""One container: its tabs, and what can be done with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext

from console.container_facts import groups, settings_of
from console.container_places import joined, network_facts, network_words, places
from console.messages import explain
from console.permissions import Permission
from console.rows import container_rows
from console.views.base import TeamRequest, act, actor_of, go, refuse, team_view
from engine.errors import QuaysideError
from engine.events import Kind
from engine.models import Container, Operation, TerminalSession
from engine.services import containers as service
from engine.services.terminals import terminal_open

MAX_TERMINAL = 1000  # columns and rows; more is a mistake


def container_of(request: TeamRequest, name: str) -> Container:
    """Raises NotFound, which becomes the 404 page."""
    found = service.find_container(request.team.namespace, name)
    found.namespace = request.team.namespace
    return found


def container_page(
    request: TeamRequest, container: Container, tab: str, extra: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The context every tab shares: the header's row, and what the image is now."""
    row = container_rows(request, request.team.slug, [container])[0]
    return {
        "row": row,
        "start_took": _start_took(container),
        "container": container,
        "tab": tab,
        "image": container.image,
        "explanation": explain(container.error)
        if container.error and not container.is_running
        else None,
        "probes": (probes := _probes(container)),
        "failing": bool(probes) and probes[0]["exit_code"] != 0,
        **(extra or {}),
    }


def _probes(container: Container) -> list[dict[str, Any]]:
    """The last results of its health check, the newest first."""
    log = container.health["log"] if container.health and container.is_running else []
    return [
        {**entry, "end": datetime.fromisoformat(entry["end"]), "output": entry["output"].strip()}
        for entry in reversed(log)
    ]


def _start_took(container: Container) -> timedelta | None:
    """From the wish to the running process; None while it does not run or was restarted, for
    then the time includes the stop."""
    if not container.is_running or container.started_at is None:
        return None
    asked = (
        Operation.objects.filter(
            kind__in=[Operation.Kind.CONTAINER_START, Operation.Kind.CONTAINER_RESTART],
            target=str(container.pk),
            created_at__lte=container.started_at,
        )
        .order_by("-created_at")
        .first()
    )
    if asked is None or asked.kind != Operation.Kind.CONTAINER_START:
        return None
    return container.started_at - asked.created_at


@team_view(Permission.SEE)
def container_home(request: TeamRequest, name: str) -> HttpResponse:
    container = container_of(request, name)
    return redirect("container-logs", team=request.team.slug, name=container.name)


@team_view(Permission.LOGS)
def container_logs(request: TeamRequest, name: str) -> HttpResponse:
    container = container_of(request, name)
    extra = {"attached": request.GET.get("attached") == "1"}
    return render(
        request, "containers/logs.html", container_page(request, container, "logs", extra)
    )


@team_view(Permission.INSPECT)
def container_inspect(request: TeamRequest, name: str) -> HttpResponse:
    container = container_of(request, name)
    settings, whole = container.settings, settings_of(container)
    raw = {
        "Id": container.uid,
        "Name": container.name,
        "State": {
            "Status": container.state,
            "Pid": container.pid,
            "ExitCode": container.exit_code,
            "StartedAt": container.started_at and container.started_at.isoformat(),
            "FinishedAt": container.finished_at and container.finished_at.isoformat(),
        },
        "Settings": settings,
    }
    same = Container.objects.none()
    if container.image is not None:
        same = container.image.containers.exclude(pk=container.pk)
    extra = {
        "siblings": list(same.order_by("-created_at")[:3]),
        "siblings_count": same.count(),
        "settings": settings,
        "groups": groups(container, whole),
        "places": places(container, whole),
        "joined": joined(container),
        "network_facts": network_facts(container, whole),
        "network_words": network_words(whole.network_mode),
        "raw": json.dumps(raw, indent=2, ensure_ascii=False),
        "command": [*(settings.get("entrypoint") or ()), *(settings.get("cmd") or ())],
    }
    return render(
        request, "containers/inspect.html", container_page(request, container, "inspect", extra)
    )


@team_view(Permission.OPERATE, methods=["POST"])
def container_start(request: TeamRequest, name: str) -> HttpResponse:
    """`mode` detached (docker's own default for start), attached or interactive; or, asked by a
    terminal that knows its size, JSON with `cols` and `rows`."""
    container = container_of(request, name)
    if request.headers.get("Accept", "").startswith("application/json"):
        return _start_sized(request, container)
    mode = request.POST.get("mode", "detached")
    back = reverse("container-logs", args=[request.team.slug, container.name])
    if mode == "interactive" or (mode == "attached" and container.tty):
        return _start_in_terminal(request, container, back)
    if mode == "attached":
        try:
            service.container_start(container, actor_of(request))
        except QuaysideError as error:
            return refuse(request, error, back=back)
        return go(request, f"{back}?attached=1")
    return _operate(
        request, container, lambda: service.container_start(container, actor_of(request))
    )


def _start_sized(request: TeamRequest, container: Container) -> JsonResponse:
    try:
        size = int(request.POST["cols"]), int(request.POST["rows"])
        if not all(0 < side <= MAX_TERMINAL for side in size):
            raise ValueError
    except (KeyError, ValueError):
        return JsonResponse({"error": "cols and rows are numbers"}, status=400)
    try:
        service.container_start(container, actor_of(request), size=size)
    except QuaysideError as error:
        found = explain(error)
        return JsonResponse({"error": found.text, "hint": found.hint}, status=409)
    return JsonResponse({"started": True})


def _start_in_terminal(request: TeamRequest, container: Container, back: str) -> HttpResponse:
    try:
        session = terminal_open(
            container, kind=TerminalSession.Kind.ATTACH, owner_id=request.user.pk
        )
    except QuaysideError as error:
        return refuse(request, error, back=back)
    address = reverse("terminal-session", args=[request.team.slug, container.name, session.pk])
    return go(request, f"{address}?start=1")


@team_view(Permission.OPERATE, methods=["POST"])
def container_stop(request: TeamRequest, name: str) -> HttpResponse:
    container = container_of(request, name)
    return _operate(
        request, container, lambda: service.container_stop(container, actor_of(request))
    )


@team_view(Permission.OPERATE, methods=["POST"])
def container_restart(request: TeamRequest, name: str) -> HttpResponse:
    container = container_of(request, name)
    return _operate(
        request, container, lambda: service.container_restart(container, actor_of(request))
    )


@team_view(Permission.OPERATE, methods=["POST"])
def container_kill(request: TeamRequest, name: str) -> HttpResponse:
    container = container_of(request, name)
    return _operate(
        request, container, lambda: service.container_kill(container, actor_of(request))
    )


@team_view(Permission.OPERATE, methods=["POST"])
def container_pause(request: TeamRequest, name: str) -> HttpResponse:
    container = container_of(request, name)
    return _operate(
        request, container, lambda: service.container_pause(container, actor_of(request))
    )


@team_view(Permission.OPERATE, methods=["POST"])
def container_unpause(request: TeamRequest, name: str) -> HttpResponse:
    container = container_of(request, name)
    return _operate(
        request, container, lambda: service.container_unpause(container, actor_of(request))
    )


def _operate(request: TeamRequest, container: Container, do: Callable[[], object]) -> HttpResponse:
    back = request.POST.get("back", "")
    if not back.startswith(f"/t/{request.team.slug}/"):
        back = reverse("container-logs", args=[request.team.slug, container.name])
    return act(request, do, back=back, changed=[(Kind.CONTAINER, container.pk)])


def leave_note(container: Container) -> str:
    """What leaving an attached terminal means for the container."""
    if container.tty and container.open_stdin:
        return gettext(
            "Leaving this page leaves it running. Ending its program ends the container."
        )
    return gettext("Leaving this page leaves it running.")
