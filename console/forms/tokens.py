"""A new token for the Docker API."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _

from console.forms.base import Form

DAYS = [
    ("30", _("30 days")),
    ("90", _("90 days")),
    ("365", _("a year")),
    ("", _("until it is revoked")),
]


class TokenForm(Form):
    name = forms.CharField(
        label=_("Name"),
        max_length=100,
        help_text=_("Where it is used, so that you know later which one to revoke."),
        error_messages={"required": _("Give the token a name.")},
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    days = forms.ChoiceField(label=_("Holds for"), choices=DAYS, required=False, initial="90")

    def lasting(self) -> int | None:
        """In days; None for ever."""
        return int(self.cleaned_data["days"]) if self.cleaned_data["days"] else None
