"""Template tags: icons, states, times, sizes, form fields. They return markup only, no queries.

Lists call these hundreds of times a page, so they are plain functions and not inclusion tags.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any

from django import template
from django.forms import BoundField, CheckboxInput, Select
from django.http import HttpRequest
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language, gettext, ngettext

from console.rows import PortChip
from console.states import State

register = template.Library()

THEMES = ("light", "dark")


@register.simple_tag
def icon(name: str, extra: str = "") -> SafeString:
    """A 16-px icon of static/img/icons.svg; it is decoration, the word stands beside it."""
    return _icon(name, extra)


@cache
def _icon(name: str, extra: str) -> SafeString:
    return format_html(
        '<svg class="icon{}" width="16" height="16" aria-hidden="true"><use href="{}#{}"/></svg>',
        f" {extra}" if extra else "",
        static("img/icons.svg"),
        name,
    )


@register.simple_tag
def state(value: State) -> SafeString:
    """Shape, word and colour, never colour alone."""
    return _state(value)


@lru_cache(512)
def _state(value: State) -> SafeString:
    return format_html(
        '<span class="state state-{}">{}<span class="state-word">{}</span></span>',
        value.tone,
        icon(value.shape),
        value.word,
    )


@register.simple_tag
def port(chip: PortChip) -> SafeString:
    """What listens where, and a link to it where one can be."""
    return _port(chip)


@lru_cache(512)
def _port(chip: PortChip) -> SafeString:
    if not chip.href:
        return format_html('<span class="chip" title="{}">{}</span>', chip.title, chip.text)
    return format_html(
        '<a class="chip" href="{}" target="_blank" rel="noreferrer" title="{}">{}</a>',
        chip.href,
        chip.title,
        chip.text,
    )


@register.simple_tag
def heads(*titles: str) -> SafeString:
    """The head of a table of plain columns; a column without a title is the one of buttons."""
    hidden = format_html('<span class="unseen">{}</span>', gettext("Actions"))
    cells = format_html_join(
        "", '<th scope="col">{}</th>', ((title or hidden,) for title in titles)
    )
    return format_html("<thead><tr>{}</tr></thead>", cells)


@register.filter
def duration(value: timedelta | float | None) -> str:
    """48 ms, 4.2 s, 3 min, 2 h, 5 d; seconds when a number is given."""
    if value is None:
        return ""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 1:
        return gettext("%(n)s ms") % {"n": max(round(seconds * 1000), 0)}
    if seconds < 60:
        return gettext("%(n)s s") % {"n": f"{seconds:.1f}" if seconds < 10 else round(seconds)}
    return _coarse(seconds)


def _coarse(seconds: float) -> str:
    if seconds < 60:
        return gettext("%(n)s s") % {"n": int(seconds)}
    if seconds < 3600:
        return gettext("%(n)s min") % {"n": int(seconds // 60)}
    if seconds < 48 * 3600:
        return gettext("%(n)s h") % {"n": int(seconds // 3600)}
    return gettext("%(n)s d") % {"n": int(seconds // 86400)}


@register.filter
def ago(moment: datetime | None) -> SafeString:
    """`3 min ago` in a <time>; app.js keeps it true while the page stays open."""
    return _time(moment, "ago")


@register.filter
def since(moment: datetime | None) -> SafeString:
    """`3 min`: how long something has been so."""
    return _time(moment, "since")


def _time(moment: datetime | None, mode: str) -> SafeString:
    if moment is None:
        return mark_safe("")
    passed = max((timezone.now() - moment).total_seconds(), 0)
    text = _passed(_floored(passed), mode, get_language() or "")
    iso = moment.isoformat(timespec="seconds")
    return mark_safe(
        f'<time datetime="{iso}" data-time="{mode}" title="{iso[:10]} {iso[11:19]} UTC">'
        f"{text}</time>"
    )


@lru_cache(512)
def _passed(seconds: int, mode: str, language: str) -> SafeString:
    """Escaped; `language` is the active one: it is here to be told apart by."""
    text = _coarse(seconds)
    if mode == "ago":
        text = gettext("just now") if seconds < 10 else gettext("%(time)s ago") % {"time": text}
    return escape(text)


def _floored(seconds: float) -> int:
    """To the whole unit `_coarse` shows, so that its texts are few."""
    whole = int(seconds)
    unit = 1 if whole < 60 else 60 if whole < 3600 else 3600 if whole < 48 * 3600 else 86400
    return whole - whole % unit


@register.filter
def size(value: int | None) -> str:
    """Decimal, as docker shows it: 812 B, 4.1 kB, 77 MB, 1.2 GB."""
    if value is None:
        return ""
    number = float(value)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5 or unit == "TB":
            digits = 1 if number < 9.95 and unit != "B" else 0
            return f"{number:.{digits}f} {unit}"
        number /= 1000
    raise AssertionError("unreachable")


@register.filter
def count_of(number: int, noun: str) -> str:
    """`3 containers`, in the page's language."""
    return _COUNTS[noun](number) % {"n": f"{number:,}"}


_COUNTS: dict[str, Callable[[int], str]] = {
    "container": lambda n: ngettext("%(n)s container", "%(n)s containers", n),
    "image": lambda n: ngettext("%(n)s image", "%(n)s images", n),
    "layer": lambda n: ngettext("%(n)s layer", "%(n)s layers", n),
    "build": lambda n: ngettext("%(n)s build", "%(n)s builds", n),
}


@register.filter
def section_of(request: HttpRequest) -> str:
    """Which link of the rail is current: the part of the address behind the team."""
    parts = request.path.split("/")
    if parts[1] != "t":
        return parts[2] if len(parts) > 3 else ""
    return parts[3] if len(parts) > 4 else "overview"


@register.simple_tag(takes_context=True)
def theme(context: dict[str, Any]) -> SafeString:
    """The data-theme attribute for <html>, from the cookie app.js writes; else the system's."""
    request: HttpRequest | None = context.get("request")
    chosen = request.COOKIES.get("quayside_theme", "") if request else ""
    return format_html(' data-theme="{}"', chosen) if chosen in THEMES else mark_safe("")


@register.simple_tag
def field(bound: BoundField, kind: str = "") -> SafeString:
    """Label, control, help and errors of one form field, wired together for screen readers.

    `kind` "switch" draws a check box as a switch, "bare" leaves the label to screen readers."""
    described = []
    errors = mark_safe("")
    if bound.errors:
        described.append(f"{bound.auto_id}_error")
        errors = format_html(
            '<p class="error" id="{}_error">{}<span>{}</span></p>',
            bound.auto_id,
            icon("alert"),
            format_html_join(mark_safe("<br>"), "{}", ((error,) for error in bound.errors)),
        )
    hint = mark_safe("")
    if bound.help_text:
        described.append(f"{bound.auto_id}_hint")
        tag = "span" if isinstance(bound.field.widget, CheckboxInput) else "p"
        hint = format_html(
            '<{} class="hint" id="{}_hint">{}</{}>', tag, bound.auto_id, bound.help_text, tag
        )
    attributes: dict[str, str | bool] = {}
    if described:
        attributes["aria-describedby"] = " ".join(described)
    if bound.errors:
        attributes["aria-invalid"] = "true"
    control = bound.as_widget(attrs=attributes)
    if isinstance(bound.field.widget, CheckboxInput):
        return format_html(
            '<div class="field"><label class="{}">{}<span><span class="label">{}</span>{}</span>'
            "</label>{}</div>",
            "switch" if kind == "switch" else "check",
            control,
            bound.label,
            hint,
            errors,
        )
    optional = (
        mark_safe("")
        if bound.field.required or kind == "bare" or isinstance(bound.field.widget, Select)
        else format_html(' <span class="optional">{}</span>', gettext("optional"))
    )
    return format_html(
        '<div class="field"><label for="{}"{}>{}{}</label>{}{}{}</div>',
        bound.id_for_label,
        mark_safe(' class="unseen"') if kind == "bare" else "",
        bound.label,
        optional,
        control,
        errors,
        hint,
    )
