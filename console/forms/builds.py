"""New build, the same build again, and an image's name."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from console.forms.base import Form, mono
from engine.models import Namespace, Upload


def _text(value: str) -> str:
    text = value.replace("\r\n", "\n")
    return text if text.strip() else ""


def _upload(namespace: Namespace, id: UUID | None) -> Upload | None:
    if id is None:
        return None
    found = Upload.objects.filter(namespace=namespace, pk=id).first()
    if found is None:
        raise ValidationError(_("That upload is not here any more. Choose the source again."))
    return found


class SourceForm(Form):
    """Where the source comes from: a finished upload, or an archive in this very request (for
    browsers without JavaScript), or none."""

    names = {"upload": "archive", "dockerfile": "dockerfile", "unsupported": "dockerfile"}

    upload = forms.UUIDField(required=False, widget=forms.HiddenInput)
    archive = forms.FileField(
        label=_("Archive"),
        required=False,
        widget=forms.FileInput(attrs={"accept": ".tar,.gz,.tgz,.xz,.zst,.bz2,.zip"}),
    )
    dockerfile = forms.CharField(
        label="Dockerfile",
        required=False,
        strip=False,
        widget=forms.Textarea(attrs=mono(rows=14, wrap="off")),
    )
    # The source's own Dockerfile as the editor showed it, untouched: the one in the source counts,
    # but a mistake in it is told before anything is queued.
    dockerfile_seen = forms.CharField(required=False, strip=False, widget=forms.HiddenInput)
    no_cache = forms.BooleanField(
        label=_("Build everything anew (--no-cache)"),
        required=False,
        help_text=_("Without it, unchanged steps are taken from the cache."),
    )

    def __init__(self, namespace: Namespace, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.namespace = namespace

    def clean_dockerfile(self) -> str:
        return _text(self.cleaned_data["dockerfile"])

    def clean_dockerfile_seen(self) -> str:
        return _text(self.cleaned_data["dockerfile_seen"])

    def clean_upload(self) -> Upload | None:
        return _upload(self.namespace, self.cleaned_data["upload"])


class LoadForm(Form):
    """An archive of images: a finished upload, or a file in this very request."""

    names = {"upload": "archive"}

    upload = forms.UUIDField(required=False, widget=forms.HiddenInput)
    archive = forms.FileField(
        label=_("Archive"),
        required=False,
        widget=forms.FileInput(attrs={"accept": ".tar,.gz,.tgz,.xz,.zst,.bz2"}),
    )

    def __init__(self, namespace: Namespace, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.namespace = namespace

    def clean_upload(self) -> Upload | None:
        return _upload(self.namespace, self.cleaned_data["upload"])


class BuildForm(SourceForm):
    names = {**SourceForm.names, "invalid-reference": "tag"}

    tag = forms.CharField(
        label=_("Name and tag"),
        required=False,
        max_length=512,
        help_text=_("Like shop:latest. Without a tag it is called latest."),
        widget=forms.TextInput(attrs=mono(placeholder="shop:latest")),
    )
    dockerfile_path = forms.CharField(
        label=_("Path of the Dockerfile"),
        required=False,
        max_length=512,
        help_text=_("Inside the source."),
        widget=forms.TextInput(attrs=mono(placeholder="Dockerfile")),
    )
    args = forms.CharField(
        label=_("Build arguments"),
        required=False,
        help_text=_(
            "One NAME=value a line, for the Dockerfile's ARGs. Not for secrets: they stay"
            " readable in the image's history."
        ),
        widget=forms.Textarea(attrs=mono(rows=3, placeholder="VERSION=1.2")),
    )
    target = forms.CharField(
        label=_("Target stage"),
        required=False,
        max_length=128,
        help_text=_("Stop at this stage of the Dockerfile."),
        widget=forms.TextInput(attrs=mono()),
    )
    pull = forms.BooleanField(
        label=_("Ask the registry for newer base images (--pull)"), required=False
    )

    def clean_dockerfile_path(self) -> str:
        return self.cleaned_data["dockerfile_path"] or "Dockerfile"

    def clean_args(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in self.cleaned_data["args"].splitlines():
            name, separator, value = line.strip().partition("=")
            if not separator and name:
                raise ValidationError(
                    _("“%(line)s” has no value. Write NAME=value."), params={"line": name}
                )
            if name:
                found[name.strip()] = value
        return found


class NameForm(Form):
    """A reference: to pull, or as a further name of an image."""

    names = {"tag": "name", "invalid-reference": "name"}

    name = forms.CharField(
        label=_("Image"),
        max_length=512,
        error_messages={"required": _("Write the image's name.")},
        widget=forms.TextInput(attrs=mono(placeholder="node:20")),
    )
