"""The list of containers: pages, single rows for live refreshes, bulk actions, removal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy, ngettext

from console.markup import container_markup
from console.messages import explain
from console.permissions import Permission
from console.rows import container_rows
from console.views.base import (
    TeamRequest,
    actor_of,
    ids_of,
    keys_of,
    team_view,
    tell,
)
from console.views.lists import Column, Listing, counted, list_page, query_of
from engine.errors import QuaysideError
from engine.events import Kind
from engine.models import Container
from engine.services import containers as service

_STATES = {
    "running": [Container.State.RUNNING, Container.State.PAUSED, Container.State.RESTARTING],
    "stopped": [Container.State.CREATED, Container.State.EXITED, Container.State.DEAD],
}
_LIST = Listing(
    kind=Kind.CONTAINER,
    plural="containers",
    title=gettext_lazy("Containers"),
    sub=gettext_lazy("Each is one run of an image, independent of all others."),
    label=gettext_lazy("Filter containers"),
    placeholder=gettext_lazy("Name, image or id"),
    nothing=gettext_lazy("No container has that in its name, image or id."),
    columns=(
        Column(gettext_lazy("State"), "w-state"),
        Column(gettext_lazy("Name")),
        Column(gettext_lazy("Image")),
        Column(gettext_lazy("Ports"), "w-l"),
    ),
    states=(
        ("", gettext_lazy("All")),
        ("running", gettext_lazy("Running")),
        ("stopped", gettext_lazy("Stopped")),
    ),
    selects=True,
)
# Without the settings a list does not show.
_SHOWN = (
    "name",
    "image_name",
    "state",
    "created_at",
    "started_at",
    "finished_at",
    "exit_code",
    "error",
    "stopped_by_hand",
    "restart_count",
    "restart_at",
    "health",
)


def _rows(request: TeamRequest, containers: Iterable[Container]) -> SafeString:
    return container_markup(container_rows(request, request.team.slug, containers))


@team_view(Permission.SEE)
def container_list(request: TeamRequest) -> HttpResponse:
    everything = Container.objects.for_namespace(request.team.namespace)
    found, state = everything.search(query_of(request)), request.GET.get("state", "")
    if state in _STATES:
        found = found.filter(state__in=_STATES[state])
    return list_page(
        request,
        _LIST,
        found.only(*_SHOWN).order_by("-created_at", "-pk"),
        partial(_rows, request),
        counts=counted(everything, _STATES),
    )


@team_view(Permission.SEE)
def container_rows_now(request: TeamRequest) -> HttpResponse:
    """The rows of `?ids=`, for live.js; those that are gone are simply missing."""
    found = Container.objects.for_namespace(request.team.namespace)
    return HttpResponse(_rows(request, found.filter(pk__in=ids_of(request)).only(*_SHOWN)))


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
