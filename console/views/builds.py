"""Builds: history, a new one, one that runs or ran, the same once more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from django.db.models import Q
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from console.forms.builds import BuildForm, SourceForm
from console.markup import build_markup
from console.messages import explain
from console.models import User
from console.permissions import Permission
from console.rows import build_rows
from console.views.base import (
    TeamRequest,
    act,
    actor_of,
    ids_of,
    team_view,
)
from console.views.lists import Column, Listing, counted, list_page, query_of
from console.views.uploads import upload_whole
from engine.errors import QuaysideError, StepFailed
from engine.events import Kind
from engine.models import Build, Upload
from engine.services import builds as service

_STATES = {
    "open": [Build.State.QUEUED, Build.State.RUNNING],
    "failed": [Build.State.FAILED],
}
_LIST = Listing(
    kind=Kind.BUILD,
    plural="builds",
    title=gettext_lazy("Builds"),
    sub=gettext_lazy("A Dockerfile and its source become an image, step by step."),
    label=gettext_lazy("Filter builds"),
    placeholder=gettext_lazy("Name or number"),
    nothing=gettext_lazy("No build has that name or number."),
    columns=(
        Column(gettext_lazy("State"), "w-m"),
        Column(gettext_lazy("Name")),
        Column(gettext_lazy("Image"), "w-l"),
        Column(gettext_lazy("Took"), "w-s", number=True),
        Column(gettext_lazy("Begun"), "w-m"),
    ),
    states=(
        ("", gettext_lazy("All")),
        ("open", gettext_lazy("Building")),
        ("failed", gettext_lazy("Failed")),
    ),
)
# Without the texts a list does not show.
_SHOWN = (
    "number",
    "tag",
    "state",
    "error",
    "created_at",
    "started_at",
    "finished_at",
    "image__digest",
)
SAMPLE = """FROM node
WORKDIR /app
COPY package.json /app
RUN npm install
COPY . /app
EXPOSE 80
CMD ["node", "server.js"]
"""


def _rows(request: TeamRequest, builds: Iterable[Build]) -> SafeString:
    return build_markup(build_rows(request.team.slug, builds))


@team_view(Permission.SEE)
def build_list(request: TeamRequest) -> HttpResponse:
    everything = Build.objects.for_namespace(request.team.namespace)
    query, state = query_of(request), request.GET.get("state", "")
    found = everything
    if query:
        number = query.removeprefix("#")
        named = Q(tag__icontains=query)
        found = found.filter(named | Q(number=int(number)) if number.isdecimal() else named)
    if state in _STATES:
        found = found.filter(state__in=_STATES[state])
    return list_page(
        request,
        _LIST,
        found.select_related("image").only(*_SHOWN).order_by("-number"),
        partial(_rows, request),
        counts=counted(everything, _STATES),
    )


@team_view(Permission.SEE)
def build_rows_now(request: TeamRequest) -> HttpResponse:
    found = Build.objects.for_namespace(request.team.namespace).filter(pk__in=ids_of(request))
    return HttpResponse(_rows(request, found.select_related("image").only(*_SHOWN)))


@team_view(Permission.BUILD, methods=["GET", "HEAD", "POST"])
def build_new(request: TeamRequest) -> HttpResponse:
    namespace = request.team.namespace
    if request.method == "POST":
        form = BuildForm(namespace, request.POST, request.FILES)
        if form.is_valid():
            data = form.cleaned_data
            try:
                _check_seen(form, data["dockerfile_path"], data["args"], data["target"])
                build, _operation = service.build_create(
                    namespace,
                    actor=actor_of(request),
                    tag=data["tag"],
                    upload=_upload_of(request, form),
                    dockerfile=data["dockerfile"],
                    dockerfile_path=data["dockerfile_path"],
                    args=data["args"],
                    target=data["target"],
                    no_cache=data["no_cache"],
                    pull=data["pull"],
                )
            except QuaysideError as error:
                form.refuse(error)
            else:
                return redirect("build", team=request.team.slug, number=build.number)
    else:
        form = BuildForm(namespace, initial={"tag": request.GET.get("tag", "")})
    context = {"form": form, "sample": SAMPLE, **_source(request, form)}
    return render(request, "builds/new.html", context, status=422 if form.is_bound else 200)


def _upload_of(request: TeamRequest, form: SourceForm) -> Upload | None:
    file = form.cleaned_data["archive"]
    if file is not None:  # an error after this loses it no more
        form.cleaned_data["upload"] = upload_whole(request.team.namespace, request.user.pk, file)
    found: Upload | None = form.cleaned_data["upload"]
    return found


def _check_seen(form: SourceForm, path: str, args: dict[str, str], target: str) -> None:
    seen = form.cleaned_data["dockerfile_seen"]
    if seen and not form.cleaned_data["dockerfile"]:
        service.dockerfile_check(seen, path, args, target)


def _source(request: TeamRequest, form: SourceForm) -> dict[str, object]:
    """What the source panel and the editor show again after an error: nothing is lost."""
    kept = form.cleaned_data.get("upload") if form.is_bound else None
    seen = form.cleaned_data.get("dockerfile_seen") if form.is_bound else ""
    if seen and not form.cleaned_data.get("dockerfile"):
        data = request.POST.copy()
        data["dockerfile"] = seen
        form.data = data
    else:
        seen = ""
    bad = form.explanation
    return {
        "kept_upload": kept,
        "seen": seen,
        "uploads_url": reverse("uploads-builds", args=[request.team.slug]),
        "bad_line": bad.line if bad else None,
        "bad_end": bad.end_line if bad else None,
    }


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the Dockerfile panel: the instruction's word apart, so that it can be told."""

    keyword: str
    rest: str
    comment: bool
    failed: bool


@team_view(Permission.SEE)
def build_page(request: TeamRequest, number: int) -> HttpResponse:
    return _page(request, _build(request, number))


def _build(request: TeamRequest, number: int) -> Build:
    found = (
        Build.objects.for_namespace(request.team.namespace)
        .select_related("image", "upload", "again", "namespace")
        .filter(number=number)
        .first()
    )
    if found is None:
        raise Http404
    return found


def _page(request: TeamRequest, build: Build, form: SourceForm | None = None) -> HttpResponse:
    explanation = explain(build.error) if build.error else None
    if form is None:
        form = SourceForm(request.team.namespace, initial={"dockerfile": build.dockerfile})
    tags = [tag.familiar for tag in build.image.tags.all()] if build.image else []
    context = {
        "build": build,
        "row": build_rows(request.team.slug, [build])[0],
        "who": _who(build),
        "explanation": explanation,
        # A failed step says so at its place among the steps; other errors have no place there.
        "in_rail": (build.error or {}).get("id") == StepFailed.id,
        "lines": _lines(
            build,
            explanation.line if explanation else None,
            explanation.end_line if explanation else None,
        ),
        "run_name": (build.tag if build.tag and tags else "")
        or (tags[0] if tags else build.image.short_id if build.image else ""),
        "form": form,
        **_source(request, form),
    }
    status = 422 if form.is_bound else 200
    return render(request, "builds/build.html", context, status=status)


def _who(build: Build) -> str:
    scheme, _colon, name = build.actor.partition(":")
    if scheme == "user" and name.isdecimal():
        found = User.objects.filter(pk=int(name)).values_list("username", flat=True).first()
        return found or ""
    return name


def _lines(build: Build, line: int | None, end: int | None) -> list[Line]:
    failed = range(line, (end or line) + 1) if line else range(0)
    found = []
    continued = False
    for number, text in enumerate(build.dockerfile.rstrip("\n").split("\n"), 1):
        comment = text.lstrip().startswith("#")
        keyword, rest = "", text
        if not continued and not comment and text.strip():
            keyword, space, tail = text.partition(" ")
            rest = space + tail
        if not comment:
            continued = text.rstrip().endswith("\\")
        found.append(Line(keyword, rest, comment, number in failed))
    return found


@team_view(Permission.BUILD, methods=["POST"])
def build_cancel(request: TeamRequest, number: int) -> HttpResponse:
    build = _build(request, number)
    return act(
        request,
        lambda: service.build_cancel(build, actor_of(request)),
        back=reverse("build", args=[request.team.slug, number]),
        changed=[(Kind.BUILD, build.pk)],
    )


@team_view(Permission.BUILD, methods=["GET", "HEAD", "POST"])
def build_again(request: TeamRequest, number: int) -> HttpResponse:
    """Once more as it was; or, from the form on the page, with another Dockerfile or source.

    GET is a reload of a page that showed the form's mistakes."""
    build = _build(request, number)
    if request.method != "POST":
        return redirect("build", team=request.team.slug, number=number)
    form = SourceForm(request.team.namespace, request.POST, request.FILES)
    if not form.is_valid():
        return _page(request, build, form)
    try:
        _check_seen(form, build.dockerfile_path, build.args, build.target)
        again, _operation = service.build_again(
            build,
            actor_of(request),
            no_cache=form.cleaned_data["no_cache"],
            upload=_upload_of(request, form),
            dockerfile=_changed_dockerfile(build, form),
        )
    except QuaysideError as error:
        form.refuse(error)
        return _page(request, build, form)
    return HttpResponseRedirect(reverse("build", args=[request.team.slug, again.number]))


def _changed_dockerfile(build: Build, form: SourceForm) -> str | None:
    """None keeps what the build was given; a text that was edited replaces it; with a new source
    and an untouched text, the source's own Dockerfile counts."""
    if "dockerfile" not in form.data:
        return None
    text = form.cleaned_data["dockerfile"]
    if text.rstrip("\n") != build.dockerfile.rstrip("\n"):
        return str(text)
    return None
