"""The list of containers: pages, single rows for live refreshes, bulk actions, removal."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext, ngettext

from console.messages import explain
from console.permissions import Permission
from console.rows import container_rows
from console.views.base import (
    TeamRequest,
    actor_of,
    ids_of,
    keys_of,
    page_of,
    query_without,
    team_view,
    tell,
)
from engine.errors import QuaysideError
from engine.events import Kind
from engine.models import Container
from engine.models.container import ContainerQuerySet
from engine.services import containers as service

_STATES = {
    "running": [Container.State.RUNNING, Container.State.PAUSED, Container.State.RESTARTING],
    "stopped": [Container.State.CREATED, Container.State.EXITED, Container.State.DEAD],
}


def _listed(containers: ContainerQuerySet) -> ContainerQuerySet:
    """Without the settings a list does not show."""
    return containers.defer("settings")


@team_view(Permission.SEE)
def container_list(request: TeamRequest) -> HttpResponse:
    namespace = request.team.namespace
    everything = Container.objects.for_namespace(namespace)
    query, state = request.GET.get("q", ""), request.GET.get("state", "")
    found = everything.search(query)
    if state in _STATES:
        found = found.filter(state__in=_STATES[state])
    counts = everything.aggregate(
        all=Count("pk"),
        running=Count("pk", filter=Q(state__in=_STATES["running"])),
        stopped=Count("pk", filter=Q(state__in=_STATES["stopped"])),
    )
    page = page_of(request, _listed(found).order_by("-created_at", "-pk"))
    context = {
        "page": page,
        "rows": container_rows(request, request.team.slug, page.object_list),
        "query": query,
        "state": state,
        "counts": counts,
        "pager_query": query_without(request, "page"),
        "state_query": query_without(request, "page", "state"),
    }
    return render(request, "containers/list.html", context)


@team_view(Permission.SEE)
def container_rows_now(request: TeamRequest) -> HttpResponse:
    """The rows of `?ids=`, for live.js; those that are gone are simply missing."""
    found = Container.objects.for_namespace(request.team.namespace)
    rows = container_rows(request, request.team.slug, _listed(found.filter(pk__in=ids_of(request))))
    return render(request, "containers/rows.html", {"rows": rows})


@team_view(Permission.OPERATE, methods=["POST"])
def container_bulk(request: TeamRequest) -> HttpResponse:
    """Start or stop the chosen ones; what cannot be done is named, the rest is done."""
    verb = request.POST.get("action", "")
    do: dict[str, Callable[[Container], object]] = {
        "start": lambda container: service.container_start(container, actor_of(request)),
        "stop": lambda container: service.container_stop(container, actor_of(request)),
    }
    back = reverse("containers", args=[request.team.slug])
    if verb not in do:
        return HttpResponseRedirect(back)
    done, problems = _each(_chosen(request, request.POST.getlist("id")), do[verb])
    return _summary(request, verb, done, problems, back)


@team_view(Permission.REMOVE, methods=["GET", "HEAD", "POST"])
def container_remove(request: TeamRequest) -> HttpResponse:
    """Asks once, naming what goes; then removes. `?id=` may be given several times."""
    posted = request.method == "POST"
    source = request.POST if posted else request.GET
    chosen = _chosen(request, source.getlist("id"))
    back = reverse("containers", args=[request.team.slug])
    if not chosen:
        return HttpResponseRedirect(back)
    if posted:
        done, problems = _each(
            chosen,
            lambda c: service.container_remove(c, actor_of(request), force=True, volumes=True),
        )
        return _summary(request, "remove", done, problems, back)
    context = {
        "chosen": chosen,
        "running": [container for container in chosen if container.is_up],
        "back": back,
    }
    return render(request, "containers/remove.html", context)


def _chosen(request: TeamRequest, ids: list[str]) -> list[Container]:
    found = Container.objects.for_namespace(request.team.namespace).filter(
        pk__in=keys_of(ids[:500])
    )
    return list(found.select_related("namespace").order_by("name"))


def _each(
    chosen: list[Container], do: Callable[[Container], object]
) -> tuple[list[Container], list[str]]:
    done, problems = [], []
    for container in chosen:
        try:
            do(container)
        except QuaysideError as error:
            problems.append(explain(error).text)
        else:
            done.append(container)
    return done, problems


def _doing(verb: str, count: int) -> str:
    if verb == "start":
        text = ngettext("Starting %(n)s container.", "Starting %(n)s containers.", count)
    elif verb == "stop":
        text = ngettext("Stopping %(n)s container.", "Stopping %(n)s containers.", count)
    else:
        text = ngettext("Removing %(n)s container.", "Removing %(n)s containers.", count)
    return text % {"n": count}


def _summary(
    request: TeamRequest, verb: str, done: list[Container], problems: list[str], back: str
) -> HttpResponse:
    text = _doing(verb, len(done))
    if not done:
        text = gettext("Nothing was done.")
    tone = "fail" if problems else "run"
    hint = " ".join(problems[:3]) + (" …" if len(problems) > 3 else "")
    if request.htmx:
        changed = [(Kind.CONTAINER, container.pk) for container in done]
        toast = (tone, text, hint) if problems or len(done) != 1 else None
        return tell(changed=changed, toast=toast)
    (messages.error if problems else messages.success)(request, f"{text} {hint}".strip())
    return HttpResponseRedirect(back)
