"""Limits, restart policy, labels, volumes and rights, as the run form and a container's settings
ask for them."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from console.forms.base import Form, mono
from engine.containers.options import Limits, Mount, RestartPolicy

RESTARTS = [
    ("no", _("never")),
    ("on-failure", _("when it fails")),
    ("unless-stopped", _("always, unless stopped")),
    ("always", _("always")),
]
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_BILLION = 10**9


class SizeField(forms.CharField):
    """Bytes, as docker takes them: 512m, 1.5g; None for nothing."""

    def clean(self, value: Any) -> int | None:
        text = super().clean(value).strip()
        if not text:
            return None
        found = _SIZE.fullmatch(text)
        if found is None:
            raise ValidationError(
                _("“%(text)s” is no size. Write it like 512m or 2g."), params={"text": text}
            )
        return int(Decimal(found[1]) * (1 << _UNITS[found[2].lower()]))


def size_text(value: int | None) -> str:
    """The inverse: `512m` where it is whole."""
    if not value:
        return ""
    for unit in ("g", "m", "k"):
        if value % (1 << _UNITS[unit]) == 0:
            return f"{value >> _UNITS[unit]}{unit}"
    return str(value)


class SwapField(SizeField):
    """As SizeField, and -1 for no limit."""

    def clean(self, value: Any) -> int | None:
        return -1 if str(value or "").strip() == "-1" else super().clean(value)


class LimitsForm(Form):
    """Shared by the run form and the settings tab. Empty is no limit."""

    # The engine's own field of a reservation, which the form does not have.
    names = {"memory_reservation": "memory"}

    memory = SizeField(
        label=_("Memory"),
        required=False,
        help_text=_("Like 512m or 2g. It is ended when it needs more."),
        widget=forms.TextInput(attrs=mono(placeholder="512m")),
    )
    memory_swap = SwapField(
        label=_("Memory and swap together"),
        required=False,
        help_text=_("-1 is swap without a limit. Empty: twice the memory."),
        widget=forms.TextInput(attrs=mono(placeholder="1g")),
    )
    cpus = forms.DecimalField(
        label=_("Processors"),
        required=False,
        min_value=Decimal("0.01"),
        max_digits=8,
        decimal_places=3,
        help_text=_("Like 1.5: as much time as one and a half of them give."),
        widget=forms.TextInput(attrs=mono(placeholder="1.5", inputmode="decimal")),
    )
    pids = forms.IntegerField(
        label=_("Processes"),
        required=False,
        min_value=1,
        widget=forms.TextInput(attrs=mono(placeholder="200", inputmode="numeric")),
    )
    restart = forms.ChoiceField(
        label=_("Start again by itself"), choices=RESTARTS, required=False, initial="no"
    )
    retries = forms.IntegerField(
        label=_("Tries at most"),
        required=False,
        min_value=1,
        help_text=_("Of “when it fails”. Empty is without end."),
        widget=forms.TextInput(attrs=mono(placeholder="5", inputmode="numeric")),
    )

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        if data.get("retries") and data.get("restart") != "on-failure":
            self.add_error("retries", _("Only “when it fails” counts its tries."))
        return data

    def limits(self, before: Limits | None = None) -> Limits:
        """`before`, with what this form asks for in its place."""
        data, found = self.cleaned_data, before or Limits()
        memory, swap = data["memory"], data["memory_swap"]
        if swap is None and memory and (memory != found.memory or found.memory_swap is not None):
            swap = 2 * memory
        return replace(
            found,
            memory=memory,
            memory_swap=swap,
            nano_cpus=int(data["cpus"] * _BILLION) if data["cpus"] else None,
            pids=data["pids"],
        )

    def restart_policy(self) -> RestartPolicy:
        data = self.cleaned_data
        return RestartPolicy(data["restart"] or "no", data["retries"] or 0)

    @staticmethod
    def initial_of(limits: Limits, restart: RestartPolicy) -> dict[str, Any]:
        cpus = Decimal(limits.nano_cpus) / _BILLION if limits.nano_cpus else None
        swap = limits.memory_swap
        usual = not swap or swap == 2 * (limits.memory or 0)
        return {
            "memory": size_text(limits.memory),
            "memory_swap": "" if usual else "-1" if swap == -1 else size_text(swap),
            "cpus": cpus.normalize() if cpus is not None else None,
            "pids": limits.pids if (limits.pids or 0) > 0 else None,
            "restart": restart.name,
            "retries": restart.max_retries or None,
        }


class MountsField(forms.CharField):
    """One a line, as `docker run -v` takes it: name:/path[:ro], /path, /host:/path[:ro]."""

    def clean(self, value: Any) -> tuple[Mount, ...]:
        lines = [line.strip() for line in super().clean(value).splitlines()]
        return tuple(self._mount(line) for line in lines if line)

    @staticmethod
    def _mount(line: str) -> Mount:
        parts = line.split(":")
        read_only = len(parts) > 1 and parts[-1] in ("ro", "rw")
        words = parts[:-1] if read_only else parts
        if len(words) == 1:
            words = ["", *words]
        if len(words) != 2 or not words[1].startswith("/"):
            raise ValidationError(
                _("“%(line)s” is no volume. Write it name:/folder, or /folder alone."),
                params={"line": line},
            )
        source, destination = words
        if source.startswith("/"):
            return Mount(
                "bind", destination, source=source, read_only=parts[-1] == "ro", create=True
            )
        return Mount("volume", destination, name=source, read_only=parts[-1] == "ro")


class NamesField(forms.CharField):
    """Words between blanks or commas."""

    def clean(self, value: Any) -> tuple[str, ...]:
        return tuple(super().clean(value).replace(",", " ").split())


class LabelsField(forms.CharField):
    """One key=value a line."""

    def clean(self, value: Any) -> dict[str, str]:
        found = {}
        for line in super().clean(value).splitlines():
            key, _sign, text = line.strip().partition("=")
            if key:
                found[key.strip()] = text
        return found
