"""The one page whose Content-Security-Policy is wider, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from csp.constants import UNSAFE_INLINE
from csp.decorators import csp_update
from django.http import HttpResponseBase

View = TypeVar("View", bound=Callable[..., HttpResponseBase])


def terminal_page(view: View) -> View:
    """xterm.js puts the sizes and colours of its cells into style elements of its own.

    Scripts stay as strict as everywhere. Permission declarations on the view are kept."""
    relaxed: View = csp_update({"style-src": [UNSAFE_INLINE]})(view)
    return relaxed
