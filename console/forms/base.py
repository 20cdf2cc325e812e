"""What all forms share: no colons after labels, mono controls, service errors at their field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from console.messages import Explanation, explain
from engine.errors import QuaysideError


class Form(forms.Form):
    """`names` maps a field as the engine calls it, or an error's id, to the form's own field."""

    names: Mapping[str, str] = {}
    explanation: Explanation | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)
        self.use_required_attribute = False

    def refuse(self, error: QuaysideError) -> None:
        """Show a service's error at its field, or above the form where it has none here."""
        found = explain(error)
        self.explanation = found
        field = self.names.get(found.field or error.id, found.field)
        text = " ".join(part for part in (found.text, found.detail, found.hint) if part)
        self.add_error(field if field in self.fields else None, text)


def mono(**attributes: Any) -> dict[str, Any]:
    """Attributes of a control for what machines read: no corrections, fixed width."""
    return {
        "class": "mono",
        "autocomplete": "off",
        "autocapitalize": "none",
        "spellcheck": "false",
        **attributes,
    }
