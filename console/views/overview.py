"""The team's first page: what needs somebody, what runs, what is being built, what happened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from console import states
from console.messages import explain
from console.models import User
from console.permissions import Permission
from console.rows import ContainerRow, build_rows, container_rows
from console.states import State
from console.views.base import TeamRequest, team_view
from engine.models import Build, Container, Image, Namespace, Operation

SHOWN = 8
RECENT = timedelta(days=3)
_Kind = Operation.Kind

# What was done, as a line of the activity list; the name of what it was done to stands before it.
_DEEDS: dict[str, Promise] = {
    _Kind.CONTAINER_CREATE: _("create"),
    _Kind.CONTAINER_START: _("start"),
    _Kind.CONTAINER_STOP: _("stop"),
    _Kind.CONTAINER_KILL: _("kill"),
    _Kind.CONTAINER_RESTART: _("restart"),
    _Kind.CONTAINER_REMOVE: _("remove"),
    _Kind.CONTAINER_PAUSE: _("pause"),
    _Kind.CONTAINER_UNPAUSE: _("go on"),
    _Kind.CONTAINER_UPDATE: _("change limits"),
    _Kind.CONTAINER_CONNECT: _("connect"),
    _Kind.CONTAINER_DISCONNECT: _("disconnect"),
    _Kind.CONTAINER_PRUNE: _("clear away containers"),
    _Kind.BUILD_RUN: _("build"),
    _Kind.BUILD_PRUNE: _("clear away the build cache"),
    _Kind.IMAGE_PULL: _("pull"),
    _Kind.IMAGE_PUSH: _("push"),
    _Kind.IMAGE_LOAD: _("load"),
    _Kind.IMAGE_IMPORT: _("import"),
    _Kind.IMAGE_COMMIT: _("commit"),
    _Kind.IMAGE_REMOVE: _("remove"),
    _Kind.IMAGE_PRUNE: _("clear away images"),
    _Kind.VOLUME_REMOVE: _("remove"),
    _Kind.VOLUME_PRUNE: _("clear away volumes"),
    _Kind.NETWORK_REMOVE: _("remove"),
    _Kind.NETWORK_PRUNE: _("clear away networks"),
}


@dataclass(frozen=True, slots=True)
class Deed:
    operation: Operation
    state: State
    line: SafeString
    who: str
    problem: str


@team_view(Permission.SEE)
def dashboard(request: TeamRequest) -> HttpResponse:
    namespace, team = request.team.namespace, request.team.slug
    builds = list(
        Build.objects.for_namespace(namespace).select_related("image").order_by("-number")[:60]
    )
    containers = Container.objects.for_namespace(namespace)
    running = list(containers.running().order_by("-started_at")[: SHOWN + 1])
    exited = list(
        containers.filter(finished_at__gte=timezone.now() - RECENT)
        .exclude(state=Container.State.RUNNING)
        .order_by("-finished_at")[:40]
    )
    unwell = list(containers.running().filter(health__status="unhealthy")[:SHOWN])
    found = {c.pk: c for c in (*running, *unwell, *exited)}
    rows = {row.container.pk: row for row in container_rows(request, team, found.values())}
    running_rows = [rows[c.pk] for c in running[:SHOWN]]
    context = {
        "failed_builds": build_rows(team, _failed(builds)),
        "failed_containers": [
            *(rows[c.pk] for c in unwell),
            *(rows[c.pk] for c in exited if rows[c.pk].state.tone in ("fail", "warn")),
        ][:SHOWN],
        "running": running_rows,
        "more_running": len(running) > SHOWN,
        "building": build_rows(team, [b for b in builds if b.is_open]),
        "activity": _activity(namespace, team),
        "first": _first_steps(builds, running_rows, namespace),
    }
    return render(request, "overview/dashboard.html", context)


def _failed(builds: Iterable[Build]) -> list[Build]:
    """Failed, of the last days, and not built with success since under the same name."""
    seen: set[str] = set()
    found = []
    horizon = timezone.now() - RECENT
    for build in builds:
        name = build.tag or f"#{build.number}"
        if build.is_open or build.state == Build.State.CANCELLED or name in seen:
            continue
        seen.add(name)
        if build.state == Build.State.FAILED and build.created_at >= horizon:
            found.append(build)
    return list(islice(found, SHOWN))


@dataclass(frozen=True, slots=True)
class FirstSteps:
    """What a new team is shown: nothing here yet, or the sample to play with."""

    build: Build | None
    container: ContainerRow | None
    empty: bool


def _first_steps(
    builds: list[Build], running: list[ContainerRow], namespace: Namespace
) -> FirstSteps | None:
    mine = [build for build in builds if build.actor != "system"]
    if mine:
        return None
    built = next((build for build in builds if build.state == Build.State.DONE), None)
    of_it = [row for row in running if built and row.image_name == built.tag]
    shown = next((row for row in of_it if any(port.href for port in row.ports)), None)
    empty = not builds and not running and not Image.objects.for_namespace(namespace).exists()
    if shown is None and not empty:
        return None
    return FirstSteps(build=built, container=shown, empty=empty)


def _activity(namespace: Namespace, team: str) -> list[Deed]:
    operations = list(Operation.objects.for_namespace(namespace).order_by("-created_at")[:12])
    targets = {
        prefix: [int(o.target) for o in operations if o.kind.startswith(prefix) and o.target]
        for prefix in ("container", "build", "image")
    }
    containers = dict(
        Container.objects.filter(pk__in=targets["container"]).values_list("pk", "name")
    )
    builds = {b.pk: b for b in Build.objects.filter(pk__in=targets["build"])}
    people = dict(
        User.objects.filter(
            pk__in={
                int(o.actor.removeprefix("user:"))
                for o in operations
                if o.actor.startswith("user:")
            }
        ).values_list("pk", "username")
    )
    return [_deed(o, team, containers, builds, people) for o in operations]


def _deed(
    operation: Operation,
    team: str,
    containers: dict[int, str],
    builds: dict[int, Build],
    people: dict[int, str],
) -> Deed:
    target, href = operation.args.get("name", ""), ""
    key = int(operation.target) if operation.target.isdecimal() else 0
    if operation.kind.startswith("container.") and key in containers:
        target, href = containers[key], f"/t/{team}/containers/{containers[key]}/logs/"
    elif operation.kind == _Kind.BUILD_RUN and key in builds:
        target = builds[key].tag or f"#{builds[key].number}"
        href = f"/t/{team}/builds/{builds[key].number}/"
    elif operation.kind == _Kind.IMAGE_PULL:
        target = short_reference(operation.args.get("reference", ""))
        href = f"/t/{team}/images/pull/"
    return Deed(
        operation=operation,
        state=states.of_operation(operation),
        line=_line(str(_DEEDS[operation.kind]), str(target), href),
        who=_who(operation.actor, people),
        problem=explain(operation.error).text
        if operation.error and operation.state == Operation.State.FAILED
        else "",
    )


def _line(verb: str, target: str, href: str) -> SafeString:
    """`start web`, in the order the language wants, the name as a link where there is a page."""
    name = format_html('<a href="{}">{}</a>', href, target) if href else escape(target)
    pattern = escape(gettext("%(verb)s %(target)s")) % {"verb": "{verb}", "target": "{name}"}
    return format_html(pattern, verb=verb, name=name)


def short_reference(reference: str) -> str:
    """node:latest for docker.io/library/node:latest."""
    return reference.removeprefix("docker.io/").removeprefix("library/")


def _who(actor: str, people: dict[int, str]) -> str:
    scheme, _colon, name = actor.partition(":")
    if scheme == "user" and name.isdecimal():
        return people.get(int(name), "")
    return name
