"""Coming and going: set-up, sign-in, sign-out, language, and why a socket was refused."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import login
from django.contrib.auth.views import LoginView, LogoutView
from django.core.exceptions import ValidationError
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render
from django.utils import translation
from django.utils.decorators import method_decorator
from django.utils.translation import gettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.i18n import JavaScriptCatalog, set_language

from console.forms.access import SetupClosed, SetupForm, SignInForm
from console.models import Team
from console.permissions import Permission, may, requires
from console.setup_code import setup_is_open
from engine.models import Build, Container, TerminalSession


@requires(Permission.SIGNED_IN)
@require_GET
def home(request: HttpRequest) -> HttpResponse:
    """The first team of the person; all teams on one page come with the teams issue."""
    team = Team.objects.order_by("pk").first()
    if team is None:
        return render(request, "404.html", status=404)
    return redirect("dashboard", team=team.slug)


@requires(Permission.PUBLIC)
@require_http_methods(["GET", "HEAD", "POST"])
def setup(request: HttpRequest) -> HttpResponse:
    """The first administrator, for whoever holds the code the start command printed."""
    if not setup_is_open():
        return redirect("home" if request.user.is_authenticated else "sign-in")
    form = SetupForm(request.POST or None, initial={"team": _team_name()})
    if request.method == "POST" and form.is_valid():
        try:
            user, team = form.save()
        except SetupClosed:
            form.add_error(None, gettext("Somebody finished the set-up meanwhile. Sign in."))
        else:
            login(request, user)
            return redirect("dashboard", team=team.slug)
    status = 422 if form.is_bound else 200
    return render(request, "access/setup.html", {"form": form}, status=status)


def _team_name() -> str:
    team = Team.objects.order_by("pk").first()
    return team.name if team else ""


@method_decorator(requires(Permission.PUBLIC), name="dispatch")
class SignIn(LoginView):
    template_name = "access/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if setup_is_open():
            return redirect("setup")
        return super().dispatch(request, *args, **kwargs)

    def form_invalid(self, form: Any) -> HttpResponse:
        response = super().form_invalid(form)
        response.status_code = 422
        return response


@method_decorator(requires(Permission.PUBLIC), name="dispatch")
class SignOut(LogoutView):
    http_method_names = ["post", "options"]


@requires(Permission.PUBLIC)
@require_POST
def language(request: HttpRequest) -> HttpResponseBase:
    """Keep the language in its cookie, and in the person's row for what is written to them."""
    chosen = request.POST.get("language", "")
    user = request.user
    if user.is_authenticated and translation.check_for_language(chosen):
        user.language = chosen
        user.save(update_fields=["language"])
    return set_language(request)


@requires(Permission.PUBLIC)
def words(request: HttpRequest) -> HttpResponseBase:
    """The JavaScript's words in the page's language; `?l=` keeps browsers' caches apart."""
    response = JavaScriptCatalog.as_view(domain="djangojs", packages=["console"])(request)
    response.headers["Cache-Control"] = "max-age=3600"
    return response


_TARGETS = {
    "logs": (Permission.LOGS, Container, "uid", "namespace_id"),
    "stats": (Permission.INSPECT, Container, "uid", "namespace_id"),
    "build": (Permission.SEE, Build, "pk", "namespace_id"),
    "terminal": (Permission.EXEC, TerminalSession, "pk", "container__namespace_id"),
}


@requires(Permission.PUBLIC)
@require_GET
def session(request: HttpRequest) -> JsonResponse:
    """Why a socket was refused: a browser that is shown 1006 cannot know otherwise.

    `?kind=logs|stats|build|terminal&id=…` asks about one stream. The answer's `reason` is `ok`,
    `signed-out`, `no-access` or `gone`."""
    if not request.user.is_authenticated:
        return JsonResponse({"reason": "signed-out", "signed_in": False})
    return JsonResponse({"reason": _reason(request), "signed_in": True})


def _reason(request: HttpRequest) -> str:
    kind, id = request.GET.get("kind", ""), request.GET.get("id", "")
    if kind not in _TARGETS:
        return "ok" if may(request.user, Permission.SIGNED_IN) else "no-access"
    permission, model, key, path = _TARGETS[kind]
    try:
        row = model.objects.filter(**{key: id}).values_list(path).first()  # type: ignore[attr-defined]
    except (ValueError, TypeError, ValidationError):
        row = None
    if row is None:
        return "gone"
    return "ok" if may(request.user, permission, row[0]) else "no-access"


@requires(Permission.PUBLIC)
@require_GET
def health(request: HttpRequest) -> HttpResponse:
    """Answers once pages and the database do."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return HttpResponse("ok\n", content_type="text/plain")
