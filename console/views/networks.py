"""Networks: list, create, who is on one, connect and disconnect, removal, pruning."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy

from console.forms.storage import ConnectForm, JoinForm, NetworkForm
from console.permissions import Permission
from console.views.base import (
    Changed,
    TeamRequest,
    act,
    actor_of,
    go,
    ids_of,
    refuse,
    row_of,
    team_view,
)
from console.views.lists import Column, Listing, list_page, query_of
from engine.errors import QuaysideError
from engine.events import Kind
from engine.models import Container, Endpoint, Network, Operation
from engine.services import namespaces
from engine.services import networks as service
from engine.services.networks import BUILTIN, Builtin


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """`users` are (name, is running) of the containers on it, the first few."""

    network: Network
    driver: str
    base: str
    fixed: bool
    users: tuple[tuple[str, bool], ...]
    more: int
    pending: bool


_SHOWN_USERS = 3
_LIST = Listing(
    kind=Kind.NETWORK,
    plural="networks",
    title=gettext_lazy("Networks"),
    sub=gettext_lazy(
        "Containers on one network reach each other by name; those on another do not."
    ),
    label=gettext_lazy("Filter networks"),
    placeholder=gettext_lazy("Name"),
    nothing=gettext_lazy("No network has that in its name."),
    columns=(
        Column(gettext_lazy("Name")),
        Column(gettext_lazy("Driver"), "w-s"),
        Column(gettext_lazy("Subnet"), "w-m"),
        Column(gettext_lazy("Containers")),
        Column(gettext_lazy("Made"), "w-m"),
    ),
)


def _markup(
    request: TeamRequest, networks: Iterable[Network], builtin: Iterable[Builtin] = ()
) -> SafeString:
    context = {"rows": _rows(request, networks), "builtin": builtin}
    return render_to_string("networks/rows.html", context, request)


def _rows(request: TeamRequest, networks: Iterable[Network]) -> list[NetworkRow]:
    found = list(networks)
    users: dict[int, list[tuple[str, bool]]] = {}
    on = Endpoint.objects.filter(network__in=found).exclude(container=None)
    for endpoint in on.select_related("container").order_by("container__name"):
        if endpoint.container is not None:
            users.setdefault(endpoint.network_id, []).append(
                (endpoint.container.name, endpoint.container.is_running)
            )
    removing = set(
        Operation.objects.open()
        .filter(namespace=request.team.namespace, kind=Operation.Kind.NETWORK_REMOVE)
        .values_list("target", flat=True)
    )
    return [_row(request, one, users.get(one.pk, []), str(one.pk) in removing) for one in found]


def _row(
    request: TeamRequest, network: Network, users: list[tuple[str, bool]], pending: bool
) -> NetworkRow:
    return NetworkRow(
        network=network,
        driver=service.DRIVER,
        base=_address(request, network),
        fixed=service.is_default(network),
        users=tuple(users[:_SHOWN_USERS]),
        more=max(0, len(users) - _SHOWN_USERS),
        pending=pending,
    )


def _address(request: TeamRequest, network: Network) -> str:
    """By its id: a network may be called what no address can carry."""
    return reverse("network", args=[request.team.slug, network.uid[:12]])


def _found(request: TeamRequest, query: str = "") -> QuerySet[Network]:
    found = Network.objects.filter(namespace=request.team.namespace)
    return found.filter(name__icontains=query) if query else found


@team_view(Permission.SEE)
def network_list(request: TeamRequest) -> HttpResponse:
    namespaces.network_default(request.team.namespace)
    query = query_of(request)
    builtin = [Builtin.of(request.team.namespace, name) for name in BUILTIN if query in name]
    found = _found(request, query).order_by("name")
    return list_page(request, _LIST, found, partial(_markup, request, builtin=builtin), any=True)


@team_view(Permission.SEE)
def network_rows_now(request: TeamRequest) -> HttpResponse:
    found = _found(request).filter(pk__in=ids_of(request))
    return HttpResponse(_markup(request, found))


@team_view(Permission.CREATE, methods=["GET", "HEAD", "POST"])
def network_new(request: TeamRequest) -> HttpResponse:
    form = NetworkForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = service.network_create(request.team.namespace, form.request())
        except QuaysideError as error:
            form.refuse(error)
        else:
            return go(request, _address(request, made))
    return render(
        request, "networks/new.html", {"form": form}, status=422 if form.is_bound else 200
    )


@team_view(Permission.INSPECT)
def network_page(request: TeamRequest, name: str) -> HttpResponse:
    network = service.find_network(request.team.namespace, name)
    on = network.endpoints.exclude(container=None).select_related("container")
    context = {
        "row": _rows(request, [network])[0],
        "network": network,
        "endpoints": list(on.order_by("container__name")),
        "options": service.driver_options(network),
    }
    return render(request, "networks/page.html", context)


@team_view(Permission.OPERATE, methods=["GET", "HEAD", "POST"])
def network_connect(request: TeamRequest, name: str) -> HttpResponse:
    network = service.find_network(request.team.namespace, name)
    form = ConnectForm(_could_come(network), request.POST or None)
    return connect_dialog(
        request,
        form,
        lambda: (form.cleaned_data["container"], network),
        back=_address(request, network),
        title=gettext("Connect a container"),
        sub=f"{network.name} · {network.subnet}",
        choice=form["container"],
        nothing=gettext("Every container that has networks is on it already."),
    )


def connect_dialog(
    request: TeamRequest,
    form: ConnectForm | JoinForm,
    chosen: Callable[[], tuple[Container, Network]],
    *,
    back: str,
    **words: object,
) -> HttpResponse:
    """From a network's page and from a container's. `chosen` is asked once the form is valid."""
    if request.method == "POST" and form.is_valid():
        try:
            service.container_connect(*chosen(), actor_of(request), form.wishes())
        except QuaysideError as error:
            form.refuse(error)
        else:
            return go(request, back)
    context = {"form": form, "back": back, **words}
    return render(request, "networks/connect.html", context, status=422 if form.is_bound else 200)


def _could_come(network: Network) -> list[Container]:
    """Those with networks of their own that are not on this one."""
    found = Container.objects.for_namespace(network.namespace).exclude(endpoints__network=network)
    modes = ("none", "host")
    return [
        container
        for container in found.select_related("namespace").order_by("name")[:500]
        if (mode := container.settings.get("network_mode", "")) not in modes
        and not str(mode).startswith("container:")
    ]


@team_view(Permission.OPERATE, methods=["POST"])
def network_disconnect(request: TeamRequest, name: str) -> HttpResponse:
    network = service.find_network(request.team.namespace, name)
    containers = Container.objects.for_namespace(network.namespace).select_related("namespace")
    container = row_of(containers, request.POST.get("container", ""))
    changed = (Kind.NETWORK, network.pk)
    return disconnect(request, container, network, back=_address(request, network), changed=changed)


def disconnect(
    request: TeamRequest,
    container: Container | None,
    network: Network | None,
    *,
    back: str,
    changed: Changed,
) -> HttpResponse:
    """One off the other; with one of them gone, it is off already."""
    if container is None or network is None:
        return HttpResponseRedirect(back)
    return act(
        request,
        lambda: service.container_disconnect(container, network, actor_of(request)),
        back=back,
        changed=[changed],
    )


@team_view(Permission.REMOVE, methods=["GET", "HEAD", "POST"])
def network_remove(request: TeamRequest, name: str) -> HttpResponse:
    """Asks once, naming who is on it and what stands in the way."""
    network = service.find_network(request.team.namespace, name)
    back = reverse("networks", args=[request.team.slug])
    if request.method == "POST":
        try:
            service.network_remove(network, actor_of(request))
        except QuaysideError as error:
            return refuse(request, error, back=back)
        messages.success(request, gettext("The network is being removed."))
        return go(request, back)
    on = network.endpoints.exclude(container=None).select_related("container")
    names: dict[bool, list[str]] = {True: [], False: []}
    for endpoint in on.order_by("container__name"):
        if endpoint.container is not None:
            names[service.is_active(endpoint)].append(endpoint.container.name)
    context = {
        "row": _rows(request, [network])[0],
        "in_the_way": names[True],
        "stopped": names[False],
        "back": back,
    }
    return render(request, "networks/remove.html", context)


@team_view(Permission.REMOVE, methods=["GET", "HEAD", "POST"])
def network_prune(request: TeamRequest) -> HttpResponse:
    """Asks once, naming what goes."""
    back = reverse("networks", args=[request.team.slug])
    if request.method == "POST":
        service.networks_prune(request.team.namespace, actor_of(request))
        messages.success(request, gettext("Unused networks are being removed."))
        return go(request, back)
    context = {"found": service.prunable(request.team.namespace), "back": back}
    return render(request, "networks/prune.html", context)
