"""Images to and from elsewhere: push, save as a file, load from one, remove what nobody uses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext

from console.forms.base import Form
from console.forms.builds import LoadForm
from console.orm import orm
from console.permissions import Permission
from console.views.base import TeamRequest, actor_of, go, team_view
from console.views.images import image_of, page_context, transfers
from console.views.uploads import upload_whole
from engine.errors import EngineError, NotFound, QuaysideError
from engine.models import Image, Operation, StreamTicket
from engine.services import image_transfers as service
from engine.services.tickets import ticket_issue
from engine.streams.client import open_stream
from engine.streams.framing import FrameKind

_SHOWN = 12


class PushForm(Form):
    """Which of its names says where it goes."""

    names = {"invalid-reference": "name", "not-found": "name"}

    name = forms.ChoiceField()

    def __init__(self, image: Image, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"] = forms.ChoiceField(
            label=gettext("Name"),
            choices=[(tag.familiar, tag.familiar) for tag in image.tags.all()],
            help_text=gettext(
                "The name says which registry it goes to. To push elsewhere, add a name first."
            ),
        )


@team_view(Permission.IMAGES, methods=["GET", "HEAD", "POST"])
def image_push(request: TeamRequest, digest: str) -> HttpResponse:
    """The sign-in is the one an administrator has kept for the registry."""
    image = image_of(request, digest)
    form = PushForm(image, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            service.image_push(image.namespace, form.cleaned_data["name"], actor_of(request))
        except QuaysideError as error:
            form.refuse(error)
        else:
            return redirect("image-push", team=request.team.slug, digest=image.short_id)
    context = {
        **page_context(request, image, "push"),
        "form": form,
        "pulls": transfers(request, Operation.Kind.IMAGE_PUSH),
    }
    return render(request, "images/push.html", context, status=422 if form.is_bound else 200)


@team_view(Permission.IMAGES, methods=["GET", "HEAD", "POST"])
def image_load(request: TeamRequest) -> HttpResponse:
    namespace = request.team.namespace
    form = LoadForm(namespace, request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            upload = form.cleaned_data["upload"]
            if file := form.cleaned_data["archive"]:
                upload = upload_whole(namespace, request.user.pk, file)
            if upload is None:
                form.add_error("archive", gettext("Choose an archive."))
            else:
                service.image_load_upload(upload, actor_of(request))
                return redirect("image-load", team=request.team.slug)
        except QuaysideError as error:
            form.refuse(error)
    context = {
        "form": form,
        "kept_upload": form.cleaned_data.get("upload") if form.is_bound else None,
        "uploads_url": reverse("uploads-images", args=[request.team.slug]),
        "archives_only": True,
        "pulls": transfers(request, Operation.Kind.IMAGE_LOAD),
    }
    return render(request, "images/load.html", context, status=422 if form.is_bound else 200)


@team_view(Permission.INSPECT)
def image_save(request: TeamRequest, digest: str) -> StreamingHttpResponse:
    """What `docker save` gives, with all its names; nothing of it is kept in web's memory."""
    image = image_of(request, digest)
    body = _archive(request.user.pk, request.session.session_key or "", str(image.pk))
    response = StreamingHttpResponse(body, content_type="application/x-tar")
    tag = image.tags.first()
    name = tag.familiar.rpartition("/")[2].replace(":", "-") if tag else image.short_id
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.tar"'
    return response


async def _archive(user_id: int, session_key: str, target: str) -> AsyncIterator[bytes]:
    """The headers are gone when something turns out to be away, so the download then breaks off."""
    ticket = await orm(ticket_issue, user_id, session_key, StreamTicket.Action.IMAGE, target)
    stream = await open_stream(settings.ENGINE, ticket, {})
    left: int | None = None
    try:
        while left != 0 and (frame := await stream.read()) is not None:
            kind, payload = frame
            if kind is FrameKind.BINARY and left is not None:
                left -= len(payload)
                yield payload
                continue
            message = json.loads(payload)
            if message["t"] == "size":
                left = message["bytes"]
            elif message["t"] == "end":
                raise NotFound(str((message.get("error") or {}).get("message", "it is gone")))
        if left != 0:
            raise EngineError(f"the archive of image {target} broke off before its end")
    finally:
        await stream.close()


@team_view(Permission.REMOVE, methods=["GET", "HEAD", "POST"])
def image_prune(request: TeamRequest) -> HttpResponse:
    """Asks once, with what it frees; `all` takes those with a name too."""
    namespace = request.team.namespace
    back = reverse("images", args=[request.team.slug])
    if request.method == "POST":
        nameless = "all" not in request.POST
        chosen = [image.pk for image in service.prunable(namespace, dangling=nameless)]
        service.prune(namespace, chosen, actor_of(request), dangling=nameless)
        messages.success(request, gettext("Unused images are being removed."))
        return go(request, back)
    nameless_images = service.prunable(namespace, dangling=True)
    unused = service.prunable(namespace, dangling=False)
    named = [image for image in unused if image not in nameless_images]
    context = {
        "nameless": len(nameless_images),
        "nameless_size": service.freed(namespace, nameless_images),
        "named": [_name_of(image) for image in named[:_SHOWN]],
        "named_count": len(named),
        "all_size": service.freed(namespace, unused),
        "back": back,
    }
    return render(request, "images/prune.html", context)


def _name_of(image: Image) -> str:
    tag = image.tags.first()
    return tag.familiar if tag else image.short_id
