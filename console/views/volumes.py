"""Volumes: list, create, who has one, removal, pruning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy

from console.forms.storage import VolumeForm
from console.permissions import Permission
from console.views.base import (
    TeamRequest,
    actor_of,
    go,
    ids_of,
    refuse,
    team_view,
)
from console.views.lists import Column, Listing, list_page, query_of
from engine.errors import QuaysideError
from engine.events import Kind
from engine.models import Operation, Volume, VolumeUse
from engine.services import volumes as service


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """`users` are (name, is running) of the containers that have it, the first few."""

    volume: Volume
    name: str
    base: str
    kind: str
    size: int | None
    users: tuple[tuple[str, bool], ...]
    more: int
    pending: bool


_SHOWN_USERS = 3
_LIST = Listing(
    kind=Kind.VOLUME,
    plural="volumes",
    title=gettext_lazy("Volumes"),
    sub=gettext_lazy(
        "A volume keeps files beyond the container that wrote them, "
        "and several containers can share one."
    ),
    label=gettext_lazy("Filter volumes"),
    placeholder=gettext_lazy("Name"),
    nothing=gettext_lazy("No volume has that in its name."),
    columns=(
        Column(gettext_lazy("Name")),
        Column(gettext_lazy("Driver"), "w-s"),
        Column(gettext_lazy("Size"), "w-s", number=True),
        Column(gettext_lazy("Containers")),
        Column(gettext_lazy("Made"), "w-m"),
    ),
)


def _markup(request: TeamRequest, volumes: Iterable[Volume]) -> SafeString:
    return render_to_string("volumes/rows.html", {"rows": _rows(request, volumes)}, request)


def _rows(request: TeamRequest, volumes: Iterable[Volume]) -> list[VolumeRow]:
    found = list(volumes)
    users: dict[int, dict[str, bool]] = {}
    for use in VolumeUse.objects.filter(volume__in=found).select_related("container"):
        users.setdefault(use.volume_id, {})[use.container.name] = use.container.is_running
    removing = set(
        Operation.objects.open()
        .filter(namespace=request.team.namespace, kind=Operation.Kind.VOLUME_REMOVE)
        .values_list("target", flat=True)
    )
    return [_row(request, one, users.get(one.pk, {}), str(one.pk) in removing) for one in found]


def _row(request: TeamRequest, volume: Volume, users: dict[str, bool], pending: bool) -> VolumeRow:
    named = sorted(users.items())
    return VolumeRow(
        volume=volume,
        name=volume.name[:12] if volume.anonymous else volume.name,
        base=reverse("volume", args=[request.team.slug, volume.name]),
        kind=_kind(volume),
        size=service.usage(volume).size,
        users=tuple(named[:_SHOWN_USERS]),
        more=max(0, len(named) - _SHOWN_USERS),
        pending=pending,
    )


def _kind(volume: Volume) -> str:
    options = service.driver_options(volume)
    if not options:
        return service.DRIVER
    return gettext("memory") if options.get("type") == "tmpfs" else options.get("device", "")


def _found(request: TeamRequest, query: str = "") -> QuerySet[Volume]:
    found = Volume.objects.for_namespace(request.team.namespace)
    return found.filter(name__icontains=query) if query else found


@team_view(Permission.SEE)
def volume_list(request: TeamRequest) -> HttpResponse:
    found = _found(request, query_of(request)).order_by("anonymous", "name")
    return list_page(request, _LIST, found, partial(_markup, request))


@team_view(Permission.SEE)
def volume_rows_now(request: TeamRequest) -> HttpResponse:
    found = _found(request).filter(pk__in=ids_of(request))
    return HttpResponse(_markup(request, found))


@team_view(Permission.CREATE, methods=["GET", "HEAD", "POST"])
def volume_new(request: TeamRequest) -> HttpResponse:
    form = VolumeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            made = service.volume_create(
                request.team.namespace, data["name"], labels=data["labels"], options=form.options()
            )
        except QuaysideError as error:
            form.refuse(error)
        else:
            return go(request, reverse("volume", args=[request.team.slug, made.name]))
    return render(request, "volumes/new.html", {"form": form}, status=422 if form.is_bound else 200)


@team_view(Permission.INSPECT)
def volume_page(request: TeamRequest, name: str) -> HttpResponse:
    volume = service.find_volume(request.team.namespace, name)
    context = {
        "row": _rows(request, [volume])[0],
        "volume": volume,
        "usage": service.usage(volume),
        "options": service.driver_options(volume),
        "mountpoint": service.mountpoint(volume),
        "uses": list(volume.uses.select_related("container").order_by("container__name")),
    }
    return render(request, "volumes/page.html", context)


@team_view(Permission.REMOVE, methods=["GET", "HEAD", "POST"])
def volume_remove(request: TeamRequest, name: str) -> HttpResponse:
    """Asks once, naming what goes and what stands in the way."""
    volume = service.find_volume(request.team.namespace, name)
    back = reverse("volumes", args=[request.team.slug])
    if request.method == "POST":
        try:
            service.volume_remove(volume, actor_of(request))
        except QuaysideError as error:
            return refuse(request, error, back=back)
        messages.success(request, gettext("The volume is being removed."))
        return go(request, back)
    in_the_way = list(
        volume.uses.values_list("container__name", flat=True).order_by("container__name").distinct()
    )
    context = {"row": _rows(request, [volume])[0], "in_the_way": in_the_way, "back": back}
    return render(request, "volumes/remove.html", context)


@team_view(Permission.REMOVE, methods=["GET", "HEAD", "POST"])
def volume_prune(request: TeamRequest) -> HttpResponse:
    """Asks once, with what it frees; `all` takes named ones too."""
    namespace = request.team.namespace
    back = reverse("volumes", args=[request.team.slug])
    if request.method == "POST":
        service.volumes_prune(namespace, actor_of(request), all="all" in request.POST)
        messages.success(request, gettext("Unused volumes are being removed."))
        return go(request, back)
    rows = _rows(request, service.prunable(namespace, all=True))
    anonymous = [row for row in rows if row.volume.anonymous]
    named = [row for row in rows if not row.volume.anonymous]
    context = {
        "anonymous": anonymous,
        "anonymous_size": sum(row.size or 0 for row in anonymous),
        "named": named,
        "named_size": sum(row.size or 0 for row in named),
        "back": back,
    }
    return render(request, "volumes/prune.html", context)
