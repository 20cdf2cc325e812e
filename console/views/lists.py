"""What all lists share: their page of rows, filter, states, columns, texts; templates/list.html.

What a row says and how it looks is the nouns' own: a view hands in the rows it found, in order,
and what makes markup of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.safestring import SafeString

from console.views.base import TeamRequest, query_without

PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class Column:
    """`width` is a class of app.css; a column without one takes what is left."""

    title: Promise
    width: str = ""
    number: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """`kind` is the events' (engine.events.Kind), `plural` names the address and the folder of
    templates; `states` are the filter's (value of `?state=`, label), the first one being all; with
    `selects` rows can be chosen."""

    kind: str
    plural: str
    title: Promise
    sub: Promise
    label: Promise
    placeholder: Promise
    nothing: Promise
    columns: tuple[Column, ...]
    states: tuple[tuple[str, Promise], ...] = ()
    selects: bool = False


def list_page(
    request: TeamRequest,
    listing: Listing,
    found: QuerySet[Any],
    rows: Callable[[Iterable[Any]], SafeString],
    *,
    counts: Mapping[str, int] | None = None,
    **more: Any,
) -> HttpResponse:
    """`counts` are `counted`'s, of everything; without them a filter that finds nothing tells that
    there is something."""
    query, state = query_of(request), request.GET.get("state", "")
    known = counts.get(state, counts[""]) if counts and not query else None
    page = page_of(request, found, known)
    address = query_without(request, "page", "state")
    context = {
        "list": listing,
        "page": page,
        "rows": rows(page.object_list),
        "query": query,
        "state": state,
        "any": counts[""] if counts else page.paginator.count or query,
        "states": [
            (f"?{address}state={value}" if value else f"?{address}", value, label, counts[value])
            for value, label in listing.states
        ]
        if counts
        else (),
        "pager_query": query_without(request, "page"),
        **more,
    }
    return render(request, f"{listing.plural}/list.html", context)


def query_of(request: HttpRequest) -> str:
    return request.GET.get("q", "").strip()


def counted(rows: QuerySet[Any], states: Mapping[str, Collection[str]]) -> dict[str, int]:
    """How many there are of each group of states, and of all (""): one look at an index."""
    found = dict(rows.order_by().values_list("state").annotate(Count("pk")))
    groups = {name: sum(found.get(one, 0) for one in group) for name, group in states.items()}
    return {"": sum(found.values()), **groups}


def page_of(request: HttpRequest, rows: QuerySet[Any], count: int | None = None) -> Page[Any]:
    """The page of 100 rows the address asks for; one that does not exist is the nearest.

    `count`: how many rows there are, where that is known already."""
    pages = Paginator(rows, PAGE_SIZE)
    if count is not None:
        pages.count = count
    return pages.get_page(request.GET.get("page"))
