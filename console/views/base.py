"""What all views share: the team in the path, doing something and saying how it went.

A view of a team's page is declared with `team_view(Permission.X)`: it finds the team, asks
`may` about its namespace, and hands the view a TeamRequest. What a view does goes through `act`,
which answers htmx (events, no page) and a plain browser (message and redirect) alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.shortcuts import render
from django_htmx.middleware import HtmxDetails

from console.messages import explain
from console.models import Team, User
from console.permissions import Permission, may
from engine.errors import InvalidInput, NotFound, QuaysideError
from engine.events import Kind

Changed = tuple[Kind, int | str]
Row = TypeVar("Row", bound=Model)


class PageRequest(HttpRequest):
    """A request of a signed-in person, as the middlewares leave it."""

    user: User
    htmx: HtmxDetails


class TeamRequest(PageRequest):
    team: Team


def actor_of(request: PageRequest) -> str:
    return f"user:{request.user.pk}"


def team_view(
    permission: Permission, *, methods: Iterable[str] = ("GET", "HEAD")
) -> Callable[[Callable[..., HttpResponseBase]], Callable[..., HttpResponseBase]]:
    """Declare a view under /t/TEAM/: its permission and its methods.

    NotFound that the view lets through becomes the 404 page with its sentence; so does
    InvalidInput, which is a name in the address that cannot be one."""
    allowed = tuple(methods)

    def declare(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        @wraps(view)
        def inner(request: TeamRequest, team: str, **kwargs: Any) -> HttpResponseBase:
            if request.method not in allowed:
                return HttpResponseNotAllowed(allowed)
            if "\0" in request.path_info or "%00" in request.META.get("QUERY_STRING", ""):
                raise Http404  # nothing here has a NUL in its name, and PostgreSQL fails at one
            found = Team.objects.select_related("namespace").filter(slug=team).first()
            if found is None:
                raise Http404
            if not may(request.user, permission, found.namespace_id):
                raise PermissionDenied
            request.team = found
            try:
                return view(request, **kwargs)
            except (NotFound, InvalidInput) as error:
                return render(request, "404.html", {"explanation": explain(error)}, status=404)

        inner.permission = permission  # type: ignore[attr-defined]
        return inner

    return declare


def query_without(request: HttpRequest, *names: str) -> str:
    """The address's query without `names`, ready to be added to: "" or "q=web&"."""
    query = request.GET.copy()
    for name in names:
        query.pop(name, None)
    text = query.urlencode()
    return f"{text}&" if text else ""


def ids_of(request: HttpRequest) -> list[int]:
    """`?ids=1,2,3`: the rows a browser shows and wants again; at most a few hundred."""
    return keys_of(request.GET.get("ids", "").split(",")[:300])


def keys_of(texts: Iterable[str]) -> list[int]:
    """Those that can be a row's key; databases fail at larger numbers."""
    return [int(text) for text in texts if text.isdecimal() and len(text) <= 18]


def row_of(rows: QuerySet[Row], key: str) -> Row | None:
    """The row a form names by its key; None for one that is not among them."""
    return rows.filter(pk__in=keys_of([key])).first()


def act(
    request: TeamRequest,
    do: Callable[[], object],
    *,
    back: str,
    changed: Iterable[Changed] = (),
    done: str = "",
) -> HttpResponse:
    """Do it; then htmx hears what to fetch again, and a plain browser goes `back`.

    An error becomes a toast or a message with its sentence: nothing of the page is lost."""
    try:
        do()
    except QuaysideError as error:
        return refuse(request, error, back=back)
    if request.htmx:
        return tell(changed=changed, toast=("run", done, "") if done else None)
    if done:
        messages.success(request, done)
    return HttpResponseRedirect(back)


def refuse(request: TeamRequest, error: QuaysideError, *, back: str) -> HttpResponse:
    found = explain(error)
    hint = " ".join(part for part in (found.detail, found.hint) if part)
    if request.htmx:
        return tell(toast=("fail", found.text, hint), status=422)
    messages.error(request, f"{found.text} {hint}".strip())
    return HttpResponseRedirect(back)


def tell(
    *,
    changed: Iterable[Changed] = (),
    toast: tuple[str, str, str] | None = None,
    status: int = 204,
) -> HttpResponse:
    """An empty answer to htmx whose events live.js and app.js act upon."""
    events: dict[str, Any] = {}
    rows = [{"kind": str(kind), "id": str(id)} for kind, id in changed]
    if rows:
        events["quayside:changed"] = {"rows": rows}
    if toast:
        events["quayside:toast"] = {"tone": toast[0], "text": toast[1], "hint": toast[2]}
    return HttpResponse(status=status, headers={"HX-Trigger": json.dumps(events)})


def go(request: HttpRequest, address: str) -> HttpResponse:
    """Redirect, whoever asks: htmx follows a header, a browser a 302."""
    if request.headers.get("HX-Request"):
        return HttpResponse(status=204, headers={"HX-Redirect": address})
    return HttpResponseRedirect(address)
