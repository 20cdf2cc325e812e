"""Images: list, pull with its progress, layers, config, names, removal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy

from console import states
from console.forms.builds import NameForm
from console.markup import image_markup
from console.messages import Explanation, explain
from console.permissions import Permission
from console.rows import image_rows, names_of
from console.states import State
from console.views.base import (
    TeamRequest,
    act,
    actor_of,
    go,
    ids_of,
    refuse,
    team_view,
)
from console.views.lists import Column, Listing, list_page, query_of
from console.views.overview import short_reference
from engine.errors import QuaysideError
from engine.events import Kind
from engine.models import Container, Image, Operation, Tag
from engine.services import image_removal, image_transfers, operations
from engine.services import images as service


@dataclass(frozen=True, slots=True)
class PullLayer:
    digest: str
    word: str
    current: int
    total: int
    done: bool


@dataclass(frozen=True, slots=True)
class Pull:
    operation: Operation
    name: str
    state: State
    layers: tuple[PullLayer, ...]
    current: int
    total: int
    explanation: Explanation | None
    runs: bool
    waiting: Promise


@dataclass(frozen=True, slots=True)
class Slab:
    """One line of the layer stack: a layer with its size, or an instruction that made none."""

    instruction: str
    size: int | None
    diff_id: str
    shared: int
    comment: str


_LIST = Listing(
    kind=Kind.IMAGE,
    plural="images",
    title=gettext_lazy("Images"),
    sub=gettext_lazy("Read-only templates: built or pulled once, run as often as you like."),
    label=gettext_lazy("Filter images"),
    placeholder=gettext_lazy("Name, tag or id"),
    nothing=gettext_lazy("No image here has that name, tag or id."),
    columns=(
        Column(gettext_lazy("Name")),
        Column(gettext_lazy("Id"), "w-m"),
        Column(gettext_lazy("Size"), "w-s", number=True),
        Column(gettext_lazy("Containers"), "w-m"),
        Column(gettext_lazy("Made"), "w-m"),
    ),
)
_SHOWN = ("digest", "size", "created_at")


def _rows(request: TeamRequest, images: Iterable[Image]) -> SafeString:
    return image_markup(image_rows(request.team.namespace, request.team.slug, images))


@team_view(Permission.SEE)
def image_list(request: TeamRequest) -> HttpResponse:
    found = Image.objects.for_namespace(request.team.namespace).search(query_of(request))
    return list_page(
        request,
        _LIST,
        found.only(*_SHOWN).order_by("-added_at", "-pk"),
        partial(_rows, request),
        pulls=transfers(request, open_only=True),
    )


@team_view(Permission.SEE)
def image_rows_now(request: TeamRequest) -> HttpResponse:
    found = Image.objects.for_namespace(request.team.namespace).filter(pk__in=ids_of(request))
    return HttpResponse(_rows(request, found.only(*_SHOWN)))


@team_view(Permission.IMAGES, methods=["GET", "HEAD", "POST"])
def image_pull(request: TeamRequest) -> HttpResponse:
    form = NameForm(request.POST or None, initial={"name": request.GET.get("name", "")})
    if request.method == "POST" and form.is_valid():
        try:
            service.image_pull(request.team.namespace, form.cleaned_data["name"], actor_of(request))
        except QuaysideError as error:
            form.refuse(error)
        else:
            return redirect("image-pull", team=request.team.slug)
    context = {"form": form, "pulls": transfers(request, Operation.Kind.IMAGE_PULL)}
    return render(request, "images/pull.html", context, status=422 if form.is_bound else 200)


@team_view(Permission.IMAGES, methods=["POST"])
def pull_cancel(request: TeamRequest, id: int) -> HttpResponse:
    operation = Operation.objects.filter(
        namespace=request.team.namespace, kind__in=_TRANSFERS, pk=id
    ).first()
    pulls = operation is None or operation.kind == Operation.Kind.IMAGE_PULL
    back = reverse("image-pull" if pulls else "images", args=[request.team.slug])
    if operation is None:
        return HttpResponseRedirect(back)
    return act(
        request,
        lambda: operations.cancel(operation),
        back=back,
        changed=[(Kind.OPERATION, operation.pk)],
    )


_TRANSFERS = (
    Operation.Kind.IMAGE_PULL,
    Operation.Kind.IMAGE_PUSH,
    Operation.Kind.IMAGE_LOAD,
)


_WAITING = {
    Operation.Kind.IMAGE_PULL: gettext_lazy("Asking the registry …"),
    Operation.Kind.IMAGE_PUSH: gettext_lazy("Asking the registry …"),
    Operation.Kind.IMAGE_LOAD: gettext_lazy("Reading the archive …"),
}


def transfers(request: TeamRequest, *kinds: Operation.Kind, open_only: bool = False) -> list[Pull]:
    """The latest of these kinds, or of all that move images."""
    found = Operation.objects.for_namespace(request.team.namespace).filter(
        kind__in=kinds or _TRANSFERS
    )
    if open_only:
        found = found.open()
    return [_pull(operation) for operation in found.order_by("-created_at")[:10]]


def _pull(operation: Operation) -> Pull:
    layers = tuple(_layers(operation.progress.get("layers") or ()))
    return Pull(
        operation=operation,
        name=short_reference(
            str(operation.args.get("reference") or operation.args.get("name") or "")
        ),
        runs=operation.kind == Operation.Kind.IMAGE_PULL,
        waiting=_WAITING[Operation.Kind(operation.kind)],
        state=states.of_operation(operation),
        layers=layers,
        current=sum(layer.current for layer in layers),
        total=sum(layer.total for layer in layers),
        explanation=explain(operation.error) if operation.error else None,
    )


def _layers(progress: Iterable[dict[str, Any]]) -> Iterable[PullLayer]:
    words = {
        "resolving": gettext("waiting"),
        "downloading": gettext("downloading"),
        "extracting": gettext("unpacking"),
        "done": gettext("done"),
        "exists": gettext("already there"),
        "preparing": gettext("waiting"),
        "pushing": gettext("sending"),
        "pushed": gettext("done"),
        "mounted": gettext("already there"),
    }
    for layer in progress:
        kind, total = str(layer.get("kind", "")), int(layer.get("total") or 0)
        done = kind in ("done", "exists", "pushed", "mounted")
        yield PullLayer(
            digest=str(layer.get("digest", "")).removeprefix("sha256:")[:12],
            word=words.get(kind, kind),
            current=total if done else min(int(layer.get("current") or 0), total),
            total=total,
            done=done,
        )


def image_of(request: TeamRequest, digest: str) -> Image:
    """By whole or short id; NotFound becomes the 404 page."""
    found = service.find_image(request.team.namespace, digest)
    found.namespace = request.team.namespace
    return found


def page_context(request: TeamRequest, image: Image, tab: str) -> dict[str, Any]:
    tags = list(image.tags.all())
    names = names_of(tags)
    used_by = image.containers.order_by("-created_at")
    users, count = list(used_by[:4]), used_by.count()
    return {
        "image": image,
        "base": f"/t/{request.team.slug}/images/i/{image.short_id}/",
        "tags": tags,
        "title": names[0] if names else image.short_id,
        "run_name": names[0] if names else image.short_id,
        "users": users,
        "users_count": count,
        "users_more": count - len(users),
        "build": image.builds.order_by("-number").first(),
        "tab": tab,
    }


@team_view(Permission.SEE)
def image_layers(request: TeamRequest, digest: str) -> HttpResponse:
    image = image_of(request, digest)
    context = page_context(request, image, "layers")
    context["slabs"] = list(reversed(_slabs(request, image)))
    return render(request, "images/layers.html", context)


def _slabs(request: TeamRequest, image: Image) -> list[Slab]:
    """History and layers side by side, from the bottom up; `shared` counts other images here
    that stand on the very same stack up to that layer."""
    layers = list(image.layers)
    stacks = (
        Image.objects.for_namespace(request.team.namespace)
        .exclude(pk=image.pk)
        .order_by("-added_at")
        .values_list("layers", flat=True)[:300]
    )
    others = [[layer["diff_id"] for layer in stack] for stack in stacks]
    found: list[Slab] = []
    depth = 0
    own = [layer["diff_id"] for layer in layers]
    for entry in image.config.get("history") or [{} for _layer in layers]:
        instruction = _instruction(str(entry.get("created_by", "")))
        comment = str(entry.get("comment", ""))
        if entry.get("empty_layer") or depth >= len(layers):
            found.append(Slab(instruction, None, "", 0, comment))
            continue
        depth += 1
        shared = sum(other[:depth] == own[:depth] for other in others)
        layer = layers[depth - 1]
        found.append(Slab(instruction, layer["size"], layer["diff_id"], shared, comment))
    rest = layers[depth:]
    return [*found, *(Slab("", layer["size"], layer["diff_id"], 0, "") for layer in rest)]


def _instruction(created_by: str) -> str:
    """As the Dockerfile has it: builders record RUN with its shell, Docker's old one the rest
    behind #(nop)."""
    text = created_by.strip()
    if "#(nop)" in text:
        return text.partition("#(nop)")[2].strip()
    for shell in ("RUN /bin/sh -c ", "/bin/sh -c "):
        if text.startswith(shell):
            return f"RUN {text.removeprefix(shell).strip()}"
    return text


@team_view(Permission.INSPECT)
def image_config(request: TeamRequest, digest: str) -> HttpResponse:
    image = image_of(request, digest)
    context = page_context(request, image, "config")
    context["config"] = image.config.get("config") or {}
    context["raw"] = json.dumps(image.config, indent=2, ensure_ascii=False)
    return render(request, "images/config.html", context)


@team_view(Permission.IMAGES, methods=["GET", "HEAD", "POST"])
def image_tag(request: TeamRequest, digest: str) -> HttpResponse:
    """Give the image a further name, or take one away (`remove`: the tag's key)."""
    image = image_of(request, digest)
    form = NameForm(request.POST or None)
    form.fields["name"].label = gettext("New name")
    if request.method == "POST" and form.is_valid():
        try:
            service.image_tag(image, form.cleaned_data["name"], actor_of(request))
        except QuaysideError as error:
            form.refuse(error)
        else:
            address = reverse("image-layers", args=[request.team.slug, image.short_id])
            return go(request, address)
    context = {**page_context(request, image, ""), "form": form}
    return render(request, "images/tag.html", context, status=422 if form.is_bound else 200)


@team_view(Permission.IMAGES, methods=["POST"])
def image_untag(request: TeamRequest, digest: str) -> HttpResponse:
    image = image_of(request, digest)
    address = reverse("image-layers", args=[request.team.slug, image.short_id])
    key = request.POST.get("tag", "")
    tag = Tag.objects.filter(image=image, pk=int(key) if key.isdecimal() else 0).first()
    if tag is not None:
        try:
            service.image_untag(tag, actor_of(request))
        except QuaysideError as error:
            return refuse(request, error, back=address)
    return HttpResponseRedirect(address)


@team_view(Permission.REMOVE, methods=["GET", "HEAD", "POST"])
def image_remove(request: TeamRequest, digest: str) -> HttpResponse:
    """Asks once, naming what goes and what stands in the way."""
    image = image_of(request, digest)
    back = reverse("images", args=[request.team.slug])
    if request.method == "POST":
        try:
            service.image_remove(image, actor_of(request))
        except QuaysideError as error:
            return refuse(request, error, back=back)
        messages.success(request, gettext("The image is being removed."))
        return go(request, back)
    users = list(Container.objects.filter(image=image).order_by("name")[:20])
    context = {
        **page_context(request, image, ""),
        "in_the_way": users,
        "freed": image_transfers.freed(image.namespace, [image]),
        "children": [_short(child) for child in image_removal.children(image)],
        "back": back,
    }
    return render(request, "images/remove.html", context)


def _short(image: Image) -> str:
    return next(iter(names_of(image.tags.all())), image.short_id)
