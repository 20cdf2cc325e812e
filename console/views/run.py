"""The run form: from an image to a container, with the `docker run` line it amounts to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from console.forms.containers import PROTOCOLS, RunForm
from console.permissions import Permission
from console.views.base import TeamRequest, actor_of, team_view
from engine.errors import InvalidInput, NotFound, QuaysideError
from engine.models import Image, Network, Tag, TerminalSession
from engine.services import containers as service
from engine.services.images import find_image
from engine.services.terminals import terminal_open


@dataclass(frozen=True, slots=True)
class ImageDefaults:
    """What the image itself says, shown beside what the form may override."""

    image: Image
    command: str
    entrypoint: str
    working_dir: str
    user: str
    env: tuple[str, ...]
    exposed: tuple[tuple[int, str], ...]


@team_view(Permission.CREATE, methods=["GET", "HEAD", "POST"])
def container_new(request: TeamRequest) -> HttpResponse:
    if request.method == "POST":
        form = RunForm(request.POST, networks=_networks(request))
        if form.is_valid():
            try:
                return _run(request, form)
            except QuaysideError as error:
                form.refuse(error)
    else:
        form = RunForm(initial={"image": request.GET.get("image", "")}, networks=_networks(request))
    name = str(form["image"].value() or "")
    context = {
        "form": form,
        "defaults": _defaults(request, name),
        "image_name": name,
        "port_rows": form["ports"].value() or [],
        "protocols": PROTOCOLS,
        "names": [tag.familiar for tag in _tags(request)],
    }
    return render(request, "containers/new.html", context, status=422 if form.is_bound else 200)


@team_view(Permission.CREATE)
def image_defaults(request: TeamRequest) -> HttpResponse:
    """What the image of `?image=` says, when another one is typed into the form."""
    name = request.GET.get("image", "")
    context = {"defaults": _defaults(request, name), "image_name": name}
    return render(request, "containers/new_defaults.html", context)


def _networks(request: TeamRequest) -> list[str]:
    found = Network.objects.filter(namespace=request.team.namespace)
    return list(found.order_by("name").values_list("name", flat=True))


def _tags(request: TeamRequest) -> list[Tag]:
    tags = Tag.objects.filter(namespace=request.team.namespace)
    return list(tags.order_by("-updated_at")[:200])


def _defaults(request: TeamRequest, name: str) -> ImageDefaults | None:
    if not name:
        return None
    try:
        image = find_image(request.team.namespace, name)
    except (NotFound, InvalidInput):
        return None
    config: dict[str, Any] = image.config.get("config") or {}
    return ImageDefaults(
        image=image,
        command=_line(config.get("Cmd")),
        entrypoint=_line(config.get("Entrypoint")),
        working_dir=config.get("WorkingDir") or "/",
        user=config.get("User") or "root",
        env=tuple(config.get("Env") or ()),
        exposed=tuple(_exposed(config.get("ExposedPorts") or {})),
    )


def _line(words: list[str] | None) -> str:
    return " ".join(f'"{word}"' if " " in word else word for word in words or ())


def _exposed(ports: dict[str, Any]) -> list[tuple[int, str]]:
    found = []
    for entry in ports:
        number, _slash, protocol = entry.partition("/")
        if number.isdecimal():
            found.append((int(number), protocol or "tcp"))
    return sorted(found)


def _run(request: TeamRequest, form: RunForm) -> HttpResponse:
    """Detached or without input: run at once, and show the log. Attached to a terminal or with
    input: create it, and let the terminal start it once its size is known."""
    team, actor, wanted = request.team, actor_of(request), form.container_request()
    attached = form.cleaned_data["mode"] == "attached"
    if attached and (wanted.tty or wanted.open_stdin):
        container, _operation = service.container_create(team.namespace, wanted, actor)
        session = terminal_open(
            container, kind=TerminalSession.Kind.ATTACH, owner_id=request.user.pk
        )
        address = reverse("terminal-session", args=[team.slug, container.name, session.pk])
        return redirect(f"{address}?start=1")
    container, _operation = service.container_run(team.namespace, wanted, actor)
    address = reverse("container-logs", args=[team.slug, container.name])
    return redirect(f"{address}?attached=1" if attached else address)
