"""docker commit from a container's page: the dialog, its progress, and on to the new image."""

from __future__ import annotations

from django import forms
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from console import states
from console.forms.base import Form, mono
from console.messages import explain
from console.permissions import Permission
from console.views.base import TeamRequest, actor_of, go, keys_of, team_view
from console.views.container import container_of, container_page
from engine.errors import InvalidInput, NotFound, QuaysideError
from engine.models import Container, Image, Operation
from engine.oci.reference import Reference
from engine.services import image_transfers as service


class CommitForm(Form):
    names = {"tag": "name", "invalid-reference": "name"}

    name = forms.CharField(
        label=_("Name"),
        required=False,
        max_length=512,
        help_text=_("With a tag after a colon. Without a name the image has its id alone."),
        widget=forms.TextInput(attrs=mono(placeholder="shop:patched")),
    )
    message = forms.CharField(
        label=_("Message"),
        required=False,
        max_length=1000,
        help_text=_("What was changed; it stands in the image's history."),
    )
    author = forms.CharField(
        label=_("Author"),
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    pause = forms.BooleanField(
        label=_("Pause it meanwhile"),
        required=False,
        initial=True,
        help_text=_("So that no file changes while it is read."),
    )


@team_view(Permission.IMAGES, methods=["GET", "HEAD", "POST"])
def container_commit(request: TeamRequest, name: str) -> HttpResponse:
    """`?operation=` shows how far one is, and leads to its image when it is done."""
    container = container_of(request, name)
    if request.method != "POST" and "operation" in request.GET:
        return _progress(request, container)
    form = CommitForm(request.POST or None)
    back = reverse("container-files", args=[request.team.slug, container.name])
    if request.method == "POST" and form.is_valid():
        try:
            operation = service.image_commit(
                container,
                actor_of(request),
                name=form.cleaned_data["name"].strip(),
                message=form.cleaned_data["message"],
                author=form.cleaned_data["author"],
                pause=form.cleaned_data["pause"],
            )
        except QuaysideError as error:
            form.refuse(error)
        else:
            address = reverse("container-commit", args=[request.team.slug, container.name])
            return go(request, f"{address}?operation={operation.pk}")
    context = {"form": form, "container": container, "back": back}
    return render(request, "files/commit.html", context, status=422 if form.is_bound else 200)


def _familiar(name: str) -> str:
    """As it is called everywhere else; as it stands where a row has what is no name."""
    try:
        return Reference.parse(name).familiar() if name else ""
    except InvalidInput:
        return name


def _progress(request: TeamRequest, container: Container) -> HttpResponse:
    keys = keys_of([request.GET["operation"]])
    operation = Operation.objects.filter(
        namespace=request.team.namespace,
        kind=Operation.Kind.IMAGE_COMMIT,
        target=str(container.pk),
        pk__in=keys,
    ).first()
    if operation is None:
        raise NotFound("no such operation", kind="operation")
    image = None
    if operation.state == Operation.State.DONE:
        image = Image.objects.filter(
            namespace=request.team.namespace, digest=operation.result["image"]
        ).first()
    if image is not None and not request.headers.get("X-Quayside-Live"):
        return redirect("image-layers", team=request.team.slug, digest=image.short_id)
    extra = {
        "operation": operation,
        "name": _familiar(operation.args.get("name") or ""),
        "operation_state": states.of_operation(operation),
        "problem": explain(operation.error) if operation.error else None,
        "made": image,
    }
    return render(
        request, "files/committing.html", container_page(request, container, "files", extra)
    )
