"""Uploads in pieces of at most 8 MiB that can be taken up again where they broke off.

POST …/ {filename, size?} makes one; PUT …/ID/ with Upload-Offset adds a piece; GET says how far it
is; POST …/ID/finish/ closes it. All answers are JSON. Each purpose has addresses of its own
(`urls`): who may build, load an image or write files into a container may upload for that. What an
upload becomes asks for its permission again.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.files.uploadedfile import UploadedFile
from django.http import JsonResponse
from django.urls import URLPattern, path

from console.messages import explain
from console.permissions import Permission
from console.views.base import TeamRequest, team_view
from engine.errors import Conflict, InvalidInput, NoSpace, NotFound, QuaysideError
from engine.models import Namespace, Upload
from engine.services.uploads import MAX_PIECE, upload_append, upload_create, upload_finish


def urls(permission: Permission, name: str) -> list[URLPattern]:
    """The three addresses for what one who holds `permission` uploads; `name` is the first's."""
    new = team_view(permission, methods=["POST"])(_new)
    piece = team_view(permission, methods=["GET", "PUT"])(_piece)
    finish = team_view(permission, methods=["POST"])(_finish)
    return [
        path("", new, name=name),
        path("<uuid:id>/", piece, name=f"{name}-piece"),
        path("<uuid:id>/finish/", finish, name=f"{name}-finish"),
    ]


def _new(request: TeamRequest) -> JsonResponse:
    size = request.POST.get("size", "")
    try:
        upload = upload_create(
            request.team.namespace,
            request.user.pk,
            request.POST.get("filename", ""),
            int(size) if size.isdecimal() else None,
        )
    except QuaysideError as error:
        return problem(error)
    address = f"{request.path}{upload.pk}/"
    answer = {"id": str(upload.pk), "url": address, "offset": 0, "piece": MAX_PIECE}
    return JsonResponse(answer, status=201)


def _piece(request: TeamRequest, id: UUID) -> JsonResponse:
    try:
        found = own_upload(request, id)
        if request.method == "GET":
            return JsonResponse({"offset": found.received, "complete": found.complete})
        offset = request.headers.get("Upload-Offset", "")
        if not offset.isdecimal():
            raise InvalidInput("the header Upload-Offset is missing or no number", field="upload")
        if int(request.headers.get("Content-Length") or 0) > MAX_PIECE:
            raise InvalidInput("a piece is at most 8 MiB", field="upload")
        return JsonResponse({"offset": upload_append(found, int(offset), request.body)})
    except QuaysideError as error:
        return problem(error)


def _finish(request: TeamRequest, id: UUID) -> JsonResponse:
    try:
        done = upload_finish(own_upload(request, id))
    except QuaysideError as error:
        return problem(error)
    return JsonResponse({"id": str(done.pk), "size": done.size, "complete": True})


def own_upload(request: TeamRequest, id: UUID) -> Upload:
    """Only who began an upload may go on with it."""
    found = Upload.objects.filter(
        namespace=request.team.namespace, user_id=request.user.pk, pk=id
    ).first()
    if found is None:
        raise NotFound(f"no such upload: {id}", kind="upload")
    return found


def problem(error: QuaysideError) -> JsonResponse:
    """{error, hint, offset?} for the page's own JavaScript."""
    found = explain(error)
    body: dict[str, object] = {"error": found.text, "hint": found.hint or found.detail}
    if "offset" in error.context:
        body["offset"] = error.context["offset"]
    status = 400
    for kind, code in ((NotFound, 404), (Conflict, 409), (NoSpace, 507)):
        if isinstance(error, kind):
            status = code
    return JsonResponse(body, status=status)


def upload_whole(namespace: Namespace, user_id: int, file: UploadedFile[Any]) -> Upload:
    """A file that came with the form itself, from a browser without JavaScript."""
    upload = upload_create(namespace, user_id, file.name or "", file.size)
    offset = 0
    for chunk in file.chunks(MAX_PIECE):
        offset = upload_append(upload, offset, chunk)
    return upload_finish(upload)
