"""A container's Settings tab: its name, its limits and restart policy, its networks.

A change of limits is an operation: the form shows what was asked for from the moment it is sent,
and above it stands how that went.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext

from console.container_facts import settings_of
from console.container_places import joinable, joined, network_words
from console.forms.containers import RenameForm
from console.forms.options import LimitsForm
from console.forms.storage import JoinForm
from console.messages import Explanation, explain
from console.permissions import Permission
from console.views.base import TeamRequest, actor_of, row_of, team_view
from console.views.container import container_of, container_page
from console.views.networks import connect_dialog, disconnect
from engine.containers.settings import ContainerSettings
from engine.errors import QuaysideError
from engine.events import Kind
from engine.models import Container, Network, Operation
from engine.services import containers as service
from engine.services import updates


@dataclass(frozen=True, slots=True)
class LastChange:
    """How the last change of limits goes, or went: under way, done, or why it failed."""

    pending: bool
    failure: Explanation | None
    done_at: datetime | None


@team_view(Permission.OPERATE, methods=["GET", "HEAD", "POST"])
def container_settings(request: TeamRequest, name: str) -> HttpResponse:
    """Rename, limits, networks; what else it was made with shows in Inspect and is made anew by
    running."""
    container = container_of(request, name)
    form = RenameForm(request.POST or None, initial={"name": container.name})
    if request.method == "POST" and form.is_valid():
        try:
            service.container_rename(container, form.cleaned_data["name"], actor_of(request))
        except QuaysideError as error:
            form.refuse(error)
        else:
            return HttpResponseRedirect(_address(request, container))
    return _page(request, container, form, None)


@team_view(Permission.OPERATE, methods=["GET", "HEAD", "POST"])
def container_limits(request: TeamRequest, name: str) -> HttpResponse:
    """Other limits and another restart policy, while it runs too. Its address stays in the browser
    when the form was wrong: asked for, it leads to the tab."""
    container = container_of(request, name)
    if request.method != "POST":
        return HttpResponseRedirect(_address(request, container))
    form = LimitsForm(request.POST)
    if form.is_valid():
        before = _wanted(container).host
        try:
            service.container_update(
                container,
                actor_of(request),
                limits=form.limits(before.limits),
                restart=form.restart_policy(),
            )
        except QuaysideError as error:
            form.refuse(error)
        else:
            return HttpResponseRedirect(f"{_address(request, container)}#limits")
    return _page(request, container, RenameForm(initial={"name": container.name}), form)


def _address(request: TeamRequest, container: Container) -> str:
    return reverse("container-settings", args=[request.team.slug, container.name])


def _last(container: Container) -> Operation | None:
    found = Operation.objects.filter(kind=Operation.Kind.CONTAINER_UPDATE, target=str(container.pk))
    return found.order_by("-pk").first()


def _wanted(container: Container) -> ContainerSettings:
    """Its settings as they will be once the change under way, if any, is made."""
    settings, last = settings_of(container), _last(container)
    if last is None or not last.is_open:
        return settings
    return updates.changed(settings, last.args)


def _page(
    request: TeamRequest,
    container: Container,
    form: RenameForm,
    limits: LimitsForm | None,
) -> HttpResponse:
    settings = settings_of(container)
    if limits is None:
        wanted = _wanted(container).host
        limits = LimitsForm(initial=LimitsForm.initial_of(wanted.limits, wanted.restart))
    last = _last(container)
    failed = last is not None and last.state == Operation.State.FAILED
    extra = {
        "form": form,
        "limits": limits,
        "change": LastChange(
            pending=last is not None and last.is_open,
            failure=explain(last.error) if last is not None and failed and last.error else None,
            done_at=last.finished_at if last is not None and not failed else None,
        ),
        "joined": joined(container),
        "network_words": network_words(settings.network_mode),
        "joinable": bool(joinable(container)),
    }
    wrong = form.is_bound or limits.is_bound
    context = container_page(request, container, "settings", extra)
    return render(request, "containers/settings.html", context, status=422 if wrong else 200)


@team_view(Permission.OPERATE, methods=["GET", "HEAD", "POST"])
def container_connect(request: TeamRequest, name: str) -> HttpResponse:
    """One more network; asked for in a dialog."""
    container = container_of(request, name)
    form = JoinForm(joinable(container), request.POST or None)
    return connect_dialog(
        request,
        form,
        lambda: (container, form.cleaned_data["network"]),
        back=_address(request, container),
        title=gettext("Connect to a network"),
        sub=container.name,
        choice=form["network"],
        nothing=gettext("It is on every network there is, or has none of its own."),
    )


@team_view(Permission.OPERATE, methods=["POST"])
def container_disconnect(request: TeamRequest, name: str) -> HttpResponse:
    container = container_of(request, name)
    networks = Network.objects.filter(namespace=container.namespace)
    network = row_of(networks, request.POST.get("network", ""))
    changed = (Kind.CONTAINER, container.pk)
    return disconnect(
        request, container, network, back=_address(request, container), changed=changed
    )
