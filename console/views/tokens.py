"""Personal tokens of the Docker API: list, make (shown once), revoke. Administrators only, until
teams decide who may do what."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST

from console.forms.tokens import TokenForm
from console.models import Team
from console.permissions import Permission, requires
from engine.errors import NotFound, QuaysideError
from engine.services.tokens import token_create, token_revoke, tokens_of


@requires(Permission.TOKENS)
@require_http_methods(["GET", "HEAD", "POST"])
def token_list(request: HttpRequest) -> HttpResponse:
    """A POST makes one, and its answer is the only page that ever shows it."""
    form = TokenForm(request.POST or None)
    shown = ""
    if request.method == "POST" and form.is_valid():
        try:
            _, shown = token_create(_key(request), form.cleaned_data["name"], form.lasting())
        except QuaysideError as error:
            form.refuse(error)
        else:
            form = TokenForm()
    # The frame of a page is a team's.
    request.team = Team.objects.order_by("pk").first()  # type: ignore[attr-defined]
    context = {
        "form": form,
        "shown": shown,
        "tokens": tokens_of(_key(request)),
        "now": timezone.now(),
    }
    status = 422 if form.is_bound and form.errors else 200
    response = render(request, "me/tokens.html", context, status=status)
    response.headers["Cache-Control"] = "no-store"
    return response


@requires(Permission.TOKENS)
@require_POST
def token_gone(request: HttpRequest) -> HttpResponse:
    key = request.POST.get("id", "")
    try:
        token_revoke(_key(request), int(key) if key.isdecimal() and len(key) <= 18 else 0)
    except NotFound as error:
        raise Http404 from error
    messages.success(request, gettext("The token is revoked."))
    return HttpResponseRedirect(reverse("tokens"))


def _key(request: HttpRequest) -> int:
    """Of a person who is signed in: the permission has seen to that."""
    return int(request.user.pk or 0)
