"""Rows of the long lists as markup: a row's template is rendered once a shape, then filled in.

A page shows a hundred rows, and the nodes of a template cost a quarter of a millisecond for each
of them. So `row.html` is rendered with `{name}` standing in for every value, once for each set of
flags and language, and a row is one `str.format` of that. In such a template a value can only be
shown; what is asked in an `{% if %}` must be a flag, for a stand-in is always true.

What the rows say is console.rows' business; addresses and events are the views'.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from django.template.loader import render_to_string
from django.utils.html import format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language

from console.rows import BuildRow, ContainerRow, ImageRow
from console.templatetags.quayside import ago, count_of, duration, port, since, size, state

_SPACE = re.compile(r"\s+")
# Names of an image beside its first.
_BADGES = slice(1, 4)


class Row(NamedTuple):
    """`flags` choose what of the template there is; `values` are escaped unless they are safe."""

    flags: Mapping[str, bool]
    values: Mapping[str, str | int]


def filled(template: str, rows: Iterable[Row]) -> SafeString:
    """All of them, one behind the other."""
    language = get_language() or ""
    return mark_safe(
        "".join(
            [
                _frame(template, language, tuple(row.flags.items()), tuple(row.values)).format_map(
                    {name: _escaped(value) for name, value in row.values.items()}
                )
                for row in rows
            ]
        )
    )


@lru_cache(512)
def _frame(
    template: str, language: str, flags: tuple[tuple[str, bool], ...], names: tuple[str, ...]
) -> str:
    """`language` is the active one: it is here to be told apart by."""
    values = {name: f"{{{name}}}" for name in names}
    return _SPACE.sub(" ", render_to_string(template, {**values, **dict(flags)})).strip()


def _escaped(value: str | int) -> str:
    return value if isinstance(value, SafeString) else html.escape(str(value))


def container_markup(rows: Iterable[ContainerRow]) -> SafeString:
    return filled("containers/row.html", map(_container, rows))


def _container(row: ContainerRow) -> Row:
    running = row.as_running
    return Row(
        {
            "pending": row.pending,
            "running": running,
            "paused": row.paused,
            "can_press": row.can_stop if running or row.paused else row.can_start,
        },
        {
            "pk": row.pk,
            "name": row.name,
            "base": row.base,
            "image": row.image_name,
            "state": state(row.state),
            "time": since(row.moment) if running else ago(row.moment),
            "ports": mark_safe(" ".join(map(port, row.ports))),
        },
    )


def build_markup(rows: Iterable[BuildRow]) -> SafeString:
    return filled("builds/row.html", map(_build, rows))


def _build(row: BuildRow) -> Row:
    build = row.build
    return Row(
        {"named": bool(build.tag), "problem": bool(row.problem), "runs": bool(row.run)},
        {
            "pk": build.pk,
            "base": row.base,
            "state": state(row.state),
            "name": build.tag,
            "number": build.number,
            "why": row.problem,
            "image": build.image.short_id if build.image else "",
            "took": duration(row.took),
            "time": ago(build.created_at),
            "run": row.run,
        },
    )


def image_markup(rows: Iterable[ImageRow]) -> SafeString:
    return filled("images/row.html", map(_image, rows))


def _image(row: ImageRow) -> Row:
    image, more = row.image, row.names[_BADGES]
    return Row(
        {"pending": row.pending, "named": bool(row.names), "used": row.containers > 0},
        {
            "pk": image.pk,
            "base": row.base,
            "name": row.run_name,
            "more": format_html_join(" ", '<span class="badge">{}</span>', ((n,) for n in more))
            if more
            else "",
            "id": image.short_id,
            "size": size(image.size),
            "containers": count_of(row.containers, "container") if row.containers else "",
            "time": ago(image.created_at),
            "run": row.run,
        },
    )
