"""Forms of volumes and networks: what `docker volume create` and `docker network create` say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from console.forms.base import Form, mono
from engine.containers.options import EndpointSettings
from engine.models import Container, Network
from engine.services.networks import NetworkRequest

KINDS = [
    ("disk", _("on the disk: stays")),
    ("memory", _("in memory: gone with its last container")),
]


class LabelsField(forms.CharField):
    """One `key=value` a line, as a dictionary."""

    def __init__(self) -> None:
        super().__init__(
            label=_("Labels"),
            required=False,
            help_text=_("One key=value a line."),
            widget=forms.Textarea(attrs=mono(rows=2)),
        )

    def clean(self, value: Any) -> Any:
        found = {}
        for line in str(value or "").splitlines():
            key, _separator, text = line.strip().partition("=")
            if key:
                found[key] = text
        return found


class VolumeForm(Form):
    name = forms.CharField(
        label=_("Name"),
        required=False,
        max_length=255,
        help_text=_("Without one it gets a long number, and is pruned with the anonymous ones."),
        widget=forms.TextInput(attrs=mono()),
    )
    kind = forms.ChoiceField(label=_("Where its files lie"), choices=KINDS, initial="disk")
    size = forms.IntegerField(
        label=_("Most megabytes, in memory"), required=False, min_value=1, max_value=1 << 20
    )
    labels = LabelsField()
    names = {"options": "size"}

    def options(self) -> dict[str, str]:
        """The local driver's."""
        if self.cleaned_data["kind"] != "memory":
            return {}
        size = self.cleaned_data["size"]
        most = {"o": f"size={size}m"} if size else {}
        return {"type": "tmpfs", "device": "tmpfs", **most}


class NetworkForm(Form):
    name = forms.CharField(label=_("Name"), max_length=255, widget=forms.TextInput(attrs=mono()))
    subnet = forms.CharField(
        label=_("Subnet"),
        required=False,
        max_length=18,
        help_text=_("Like 10.20.0.0/24. Empty: one that is free."),
        widget=forms.TextInput(attrs=mono()),
    )
    gateway = forms.CharField(
        label=_("Gateway"),
        required=False,
        max_length=15,
        help_text=_("Empty: the subnet's first address."),
        widget=forms.TextInput(attrs=mono()),
    )
    internal = forms.BooleanField(
        label=_("No way out"),
        required=False,
        help_text=_("Its containers reach each other and nothing else."),
    )
    labels = LabelsField()

    def request(self) -> NetworkRequest:
        data = self.cleaned_data
        return NetworkRequest(
            name=data["name"].strip(),
            subnet=data["subnet"].strip(),
            gateway=data["gateway"].strip(),
            internal=data["internal"],
            labels=data["labels"],
        )


class WishesForm(Form):
    """What a container wishes for on a network."""

    aliases = forms.CharField(
        label=_("Further names"),
        required=False,
        help_text=_("What the others call it besides its own name, with blanks between."),
        widget=forms.TextInput(attrs=mono()),
    )
    ipv4 = forms.GenericIPAddressField(
        label=_("Address"),
        required=False,
        protocol="IPv4",
        help_text=_("Empty: the next free one."),
        widget=forms.TextInput(attrs=mono()),
    )

    def wishes(self) -> EndpointSettings:
        return EndpointSettings(
            aliases=tuple(self.cleaned_data["aliases"].split()), ipv4=self.cleaned_data["ipv4"]
        )


class ConnectForm(WishesForm):
    """`containers` are those that could come onto the network."""

    container = forms.ChoiceField(label=_("Container"))

    def __init__(self, containers: Iterable[Container], data: Mapping[str, Any] | None) -> None:
        super().__init__(data)
        self.found = {str(container.pk): container for container in containers}
        field = self.fields["container"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(key, container.name) for key, container in self.found.items()]

    def clean_container(self) -> Container:
        found = self.found.get(self.cleaned_data["container"])
        if found is None:
            raise ValidationError(_("Choose a container."))
        return found


class JoinForm(WishesForm):
    """The other way round: `networks` are those a container could be connected to."""

    network = forms.ChoiceField(label=_("Network"))

    def __init__(self, networks: Iterable[Network], data: Mapping[str, Any] | None) -> None:
        super().__init__(data)
        self.found = {str(network.pk): network for network in networks}
        field = self.fields["network"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(key, f"{one.name} · {one.subnet}") for key, one in self.found.items()]

    def clean_network(self) -> Network:
        found = self.found.get(self.cleaned_data["network"])
        if found is None:
            raise ValidationError(_("Choose a network."))
        return found
