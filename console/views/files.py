"""A container's Files tab: its folders and texts, downloads, uploads, what has changed, export."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.core.files.uploadedfile import UploadedFile
from django.http import HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext

from console.files import (
    at,
    change_row,
    crumbs,
    file_row,
    number_of,
    page_of,
    parent_of,
    path_of,
    shown,
)
from console.messages import explain
from console.permissions import Permission
from console.streamed import answer, download
from console.views.base import TeamRequest, act, query_without, refuse, team_view
from console.views.container import container_of, container_page
from console.views.uploads import own_upload, problem
from engine.errors import EngineError, InvalidInput, NotFound, QuaysideError
from engine.models import Container, Namespace, StreamTicket, Upload
from engine.services.uploads import upload_append, upload_create, upload_finish

# As docker cp does it from a machine whose files have no modes.
_MODE = 0o755


@team_view(Permission.FILES)
def container_files(request: TeamRequest, name: str) -> HttpResponse:
    """`?path=` is a folder, or a file whose beginning shows if it is text; `?q=` filters names."""
    container = container_of(request, name)
    path, query = path_of(request), request.GET.get("q", "")
    asked = {"path": path, "query": query, "page": number_of(request)}
    found, wrong = _asked(request, container, ask="look", **asked)
    address = reverse("container-files", args=[request.team.slug, container.name])
    get = reverse("files-get", args=[request.team.slug, container.name])
    path = found.get("path", path)
    extra: dict[str, Any] = {
        "part": "files",
        "address": address,
        "path": shown(path),
        "here": at(path),
        "get": f"{get}{at(path)}",
        "crumbs": list(crumbs(path)),
        "parent": parent_of(path),
        "query": query,
        "list": {"label": gettext("Filter this folder"), "placeholder": gettext("Part of a name")},
        "can_filter": shown(path) == path,
        "problem": wrong and explain(wrong),
        "what": found.get("what", ""),
    }
    if extra["what"] == "folder":
        extra["rows"] = [file_row(path, entry, get) for entry in found["entries"]]
        extra |= {"page": page_of(found), "more": found["more"]}
        # Not by query_without: a path's bytes need not be text.
        extra["pager_query"] = f"{at(path)[1:]}&" + (f"{urlencode({'q': query})}&" if query else "")
    elif found:
        extra["file"] = file_row(path, found["entry"], get)
        extra |= {"text": found["text"], "cut": found["cut"]}
    context = container_page(request, container, "files", extra)
    return render(request, "files/files.html", context, status=_status(wrong))


@team_view(Permission.FILES)
def container_changes(request: TeamRequest, name: str) -> HttpResponse:
    """docker diff; `?q=` is part of the paths wanted, `?state=` added, changed or deleted."""
    container = container_of(request, name)
    query, kind = request.GET.get("q", ""), request.GET.get("state", "")
    asked = {"query": query, "kind": kind, "page": number_of(request)}
    found, wrong = _asked(request, container, ask="changes", **asked)
    files = reverse("container-files", args=[request.team.slug, container.name])
    rows = [change_row(change, files) for change in found.get("entries", ())]
    counts = found.get("counts", {})
    extra = {
        "part": "changes",
        "address": reverse("container-changes", args=[request.team.slug, container.name]),
        "query": query,
        "list": {"label": gettext("Filter changes"), "placeholder": gettext("Part of a path")},
        "state": kind,
        "state_query": query_without(request, "state", "page"),
        "page": page_of(found) if found else None,
        "pager_query": query_without(request, "page"),
        "problem": wrong and explain(wrong),
        "rows": rows,
        "all": found.get("all", 0),
        "total": sum(counts.values()),
        "counts": counts,
        "size": found.get("size", 0),
    }
    context = container_page(request, container, "files", extra)
    return render(request, "files/changes.html", context, status=_status(wrong))


def _asked(
    request: TeamRequest, container: Container, **parameters: object
) -> tuple[dict[str, Any], QuaysideError | None]:
    """What engined answers, or what stands against it. A page that only looks after its live parts
    is not worth a walk through a file system."""
    if request.headers.get("X-Quayside-Live"):
        return {}, None
    try:
        return answer(request, container, StreamTicket.Action.FILES, **parameters), None
    except QuaysideError as error:
        return {}, error


def _status(error: QuaysideError | None) -> int:
    if error is None:
        return 200
    if isinstance(error, EngineError):
        return 503
    return 404 if isinstance(error, (NotFound, InvalidInput)) else 409


@team_view(Permission.FILES, methods=["GET"])
def files_get(request: TeamRequest, name: str) -> HttpResponseBase:
    """A file as it is, a folder as a tar."""
    container = container_of(request, name)
    try:
        return download(request, container, "", ask="get", path=path_of(request))
    except (NotFound, InvalidInput):
        raise  # the 404 page
    except QuaysideError as error:
        back = reverse("container-files", args=[request.team.slug, container.name])
        return refuse(request, error, back=back)


@team_view(Permission.FILES, methods=["GET"])
def container_export(request: TeamRequest, name: str) -> HttpResponseBase:
    """docker export: the whole file system, without volumes."""
    container = container_of(request, name)
    try:
        return download(request, container, f"{container.name}.tar", ask="export")
    except QuaysideError as error:
        back = reverse("container-files", args=[request.team.slug, container.name])
        return refuse(request, error, back=back)


@team_view(Permission.WRITE, methods=["POST"])
def files_put(request: TeamRequest, name: str) -> HttpResponse:
    """Into the folder `?path=`: an `upload` the page has sent as a tar, answered in JSON; or, from
    a browser without JavaScript, the form's own `files`."""
    container = container_of(request, name)
    path = path_of(request)

    def put(upload: Upload) -> None:
        answer(request, container, StreamTicket.Action.PUT, path=path, upload=str(upload.pk))

    if "upload" in request.POST:
        try:
            put(_upload(request, request.POST["upload"]))
        except QuaysideError as error:
            return problem(error)
        return JsonResponse({"done": True})

    def put_files() -> None:
        files = request.FILES.getlist("files")
        if not files:
            raise InvalidInput("no file was chosen", field="files")
        put(_packed(request.team.namespace, request.user.pk, files))

    back = reverse("container-files", args=[request.team.slug, container.name]) + at(path)
    return act(request, put_files, back=back, done=gettext("The files are there."))


def _upload(request: TeamRequest, key: str) -> Upload:
    """One's own; whether it is whole engined looks at itself."""
    try:
        return own_upload(request, UUID(key))
    except ValueError as error:
        raise NotFound(f"no such upload: {key[:40]}", kind="upload") from error


def _packed(namespace: Namespace, user_id: int, files: Iterable[UploadedFile[Any]]) -> Upload:
    """A request's body is at most 9 MiB (console.webserver), and so are all of them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for file in files:
            member = tarfile.TarInfo(file.name or "file")
            member.size, member.mode = file.size or 0, _MODE
            tar.addfile(member, file)
    data = out.getvalue()
    upload = upload_create(namespace, user_id, "files.tar", len(data))
    for offset in range(0, len(data), 1 << 20):
        upload_append(upload, offset, data[offset : offset + (1 << 20)])
    return upload_finish(upload)
