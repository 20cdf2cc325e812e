"""Who may do what: one table of permissions, one function that decides, default deny.

Every view declares its permission with `requires`, every websocket consumer with a class
attribute `permission`; `PermissionMiddleware` refuses a view that declares none. So far every
signed-in person holds everything in every team; teams and roles fill `may` later.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse

from console.models import User


class Permission(StrEnum):
    PUBLIC = "public"  # nobody need be signed in
    SIGNED_IN = "signed-in"
    SEE = "see"
    LOGS = "logs"
    INSPECT = "inspect"
    EXEC = "exec"
    FILES = "files"  # look at, download and export a container's
    WRITE = "write"  # put files into a container
    OPERATE = "operate"  # start, stop, kill, restart, rename
    CREATE = "create"
    BUILD = "build"
    REMOVE = "remove"
    IMAGES = "images"  # pull, tag
    TOKENS = "tokens"  # one's own tokens of the Docker API: administrators, so far


View = TypeVar("View", bound=Callable[..., HttpResponseBase])


def requires(permission: Permission) -> Callable[[View], View]:
    """Declare a view's permission; the middleware asks before the view runs."""

    def declare(view: View) -> View:
        view.permission = permission  # type: ignore[attr-defined]
        return view

    return declare


def may(
    user: User | AnonymousUser, permission: Permission, namespace_id: int | None = None
) -> bool:
    """The one decision, for pages, websockets, tasks and the Docker API alike."""
    if permission is Permission.PUBLIC:
        return True
    if permission is Permission.TOKENS and not user.is_superuser:
        return False
    return bool(user.is_authenticated and user.is_active)


class PermissionMiddleware:
    """Refuses what a view's declared permission does not allow; no declaration, no entry."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self,
        request: HttpRequest,
        view: Callable[..., HttpResponseBase],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        permission: Permission | None = getattr(view, "permission", None)
        if permission is None:
            raise PermissionDenied(f"{request.path}: the view declares no permission")
        if may(request.user, permission):
            return None
        if request.user.is_authenticated:
            raise PermissionDenied
        if request.headers.get("HX-Request"):
            return HttpResponse(status=401, headers={"HX-Redirect": "/sign-in/"})
        if request.headers.get("Accept", "").startswith("application/json"):
            return JsonResponse({"error": "signed-out"}, status=401)
        return redirect_to_login(request.get_full_path())
