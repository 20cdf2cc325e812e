"""List rows as templates show them: everything looked up in a few queries for a whole page.

Pure values are built here so that templates neither query nor decide; live refreshes of single
rows use the same functions as whole pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from urllib.parse import quote_plus

from django.conf import settings
from django.db.models import Count, Model, QuerySet
from django.http import HttpRequest
from django.http.request import split_domain_port
from django.utils.translation import gettext, ngettext

from console import states
from console.messages import explain
from console.states import State
from engine.models import Build, Container, Image, Namespace, Operation, Port, Tag

_Row = TypeVar("_Row", bound=Model)
_STARTS = frozenset(
    {
        Operation.Kind.CONTAINER_CREATE.value,
        Operation.Kind.CONTAINER_START.value,
        Operation.Kind.CONTAINER_RESTART.value,
    }
)


@dataclass(frozen=True, slots=True)
class PortChip:
    """`href` is empty where there is nothing to open (udp, not running, another machine)."""

    text: str
    href: str
    title: str


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """`pk`, `name` and `image_name` are the container's own: a list looks them up 100 times."""

    container: Container
    pk: int
    name: str
    image_name: str
    base: str
    state: State
    moment: datetime | None
    ports: tuple[PortChip, ...]
    pending: bool
    doing: str
    problem: str

    @property
    def as_running(self) -> bool:
        """Whether it shows the buttons of a running one: it runs, or is about to. Buttons that
        change places while something starts or stops would be pressed by mistake."""
        return self.container.is_up or self.doing in _STARTS

    @property
    def can_start(self) -> bool:
        return not self.pending and not self.container.is_up

    @property
    def paused(self) -> bool:
        return self.container.state == Container.State.PAUSED

    @property
    def can_pause(self) -> bool:
        return not self.pending and self.container.state == Container.State.RUNNING

    @property
    def can_stop(self) -> bool:
        return not self.pending and self.container.is_up


@dataclass(frozen=True, slots=True)
class BuildRow:
    build: Build
    base: str
    state: State
    took: float | None
    problem: str
    run: str


@dataclass(frozen=True, slots=True)
class ImageRow:
    image: Image
    base: str
    names: tuple[str, ...]
    run_name: str
    run: str
    containers: int
    pending: bool


def container_rows(
    request: HttpRequest, team: str, containers: Iterable[Container]
) -> list[ContainerRow]:
    """Two queries for all of them: prefetching would make a query set for each row as well."""
    rows = list(containers)
    ports = _grouped(Port.objects.filter(container__in=[row.pk for row in rows]), "container_id")
    pending = pending_of(rows)
    host = _host(request)
    return [_container_row(row, team, host, pending, ports.get(row.pk, ())) for row in rows]


def _container_row(
    row: Container, team: str, host: str, pending: dict[str, str], ports: Sequence[Port]
) -> ContainerRow:
    kind = pending.get(str(row.pk))
    return ContainerRow(
        container=row,
        pk=row.pk,
        name=row.name,
        image_name=row.image_name,
        base=f"/t/{team}/containers/{row.name}/",
        state=states.of_container(row, kind),
        moment=_moment(row),
        ports=tuple(port_chip(port, row.is_running, host) for port in ports),
        pending=kind is not None,
        doing=kind or "",
        problem=explain(row.error).text if row.error and not row.is_running else _unhealthy(row),
    )


def _moment(row: Container) -> datetime | None:
    """Since when its state is so; of one that waits to be started, the state itself says when."""
    if row.state == Container.State.RESTARTING:
        return None
    return row.started_at if row.is_running else row.finished_at or row.created_at


def _unhealthy(row: Container) -> str:
    """What the last probe of one that is not well has said."""
    if not row.is_running or not row.health or row.health["status"] != "unhealthy":
        return ""
    said = row.health["log"][-1]["output"].strip() if row.health["log"] else ""
    count = row.health["failing_streak"]
    return ngettext(
        "Its health check failed once: %(said)s",
        "Its health check failed %(n)s times in a row: %(said)s",
        count,
    ) % {"n": count, "said": said.splitlines()[-1][:200] if said else "–"}


def pending_of(containers: Sequence[Container]) -> dict[str, str]:
    """{primary key: kind of the oldest open operation on it}."""
    if not containers:
        return {}
    return dict(
        Operation.objects.open()
        .filter(kind__startswith="container.", target__in=[str(row.pk) for row in containers])
        .order_by("-created_at")
        .values_list("target", "kind")
    )


def _host(request: HttpRequest) -> str:
    """The host name port links lead to: QUAYSIDE_PUBLIC_HOST, else the one the browser used."""
    return settings.QUAYSIDE_PUBLIC_HOST or split_domain_port(request.get_host())[0]


def port_chip(port: Port, running: bool, host: str) -> PortChip:
    number = port.published_port or port.host_port
    suffix = "" if port.protocol == "tcp" else f"/{port.protocol}"
    text = f"{number or '…'} → {port.container_port}{suffix}"
    loopback = port.host_ip.startswith("127.")
    title = (
        gettext("listens on this machine only (%(address)s)") % {"address": port.host_ip}
        if loopback
        else gettext("listens on every address of this machine")
        if port.host_ip == "0.0.0.0"
        else gettext("listens on %(address)s") % {"address": port.host_ip}
    )
    if not (running and port.published_port and port.protocol == "tcp"):
        return PortChip(text, "", title)
    if port.host_ip != "0.0.0.0":
        host = port.host_ip if not loopback or host not in ("localhost", "127.0.0.1") else host
    return PortChip(text, f"http://{host}:{port.published_port}/", title)


def build_rows(team: str, builds: Iterable[Build]) -> list[BuildRow]:
    return [
        BuildRow(
            build=build,
            base=f"/t/{team}/builds/{build.number}/",
            state=states.of_build(build),
            took=took(build),
            problem=explain(build.error).text
            if build.error and build.state == Build.State.FAILED
            else "",
            run=_run(team, build.tag or build.image.short_id) if build.image else "",
        )
        for build in builds
    ]


def _run(team: str, image: str) -> str:
    """The run form, filled in with the image."""
    return f"/t/{team}/containers/new/?image={quote_plus(image)}"


def took(build: Build) -> float | None:
    """Seconds from the first step to the end; None while it runs."""
    if build.started_at is None or build.finished_at is None:
        return None
    return (build.finished_at - build.started_at).total_seconds()


def image_rows(namespace: Namespace, team: str, images: Iterable[Image]) -> list[ImageRow]:
    """Containers are counted for these rows alone: joined to the list, they would be counted for
    every image before the page is cut out of it."""
    rows = list(images)
    tags = _grouped(
        Tag.objects.filter(image__in=[row.pk for row in rows])
        .only("image_id", "repository", "tag")
        .order_by(),
        "image_id",
    )
    used = dict(
        Container.objects.filter(image__in=[row.pk for row in rows])
        .values_list("image")
        .annotate(Count("pk"))
        .order_by()
    )
    removing = set(
        Operation.objects.open()
        .filter(namespace=namespace, kind=Operation.Kind.IMAGE_REMOVE)
        .values_list("target", flat=True)
    )
    return [
        _image_row(team, row, tags.get(row.pk, ()), used.get(row.pk, 0), str(row.pk) in removing)
        for row in rows
    ]


def _grouped(rows: QuerySet[_Row], key: str) -> dict[int, list[_Row]]:
    found: dict[int, list[_Row]] = {}
    for row in rows:
        found.setdefault(getattr(row, key), []).append(row)
    return found


def names_of(tags: Iterable[Tag]) -> tuple[str, ...]:
    """An image's names as people write them; a `latest` first, for it is the one that is meant."""
    names = sorted(tag.familiar for tag in tags)
    return tuple(sorted(names, key=lambda name: not name.endswith(":latest")))


def _image_row(team: str, image: Image, tags: Iterable[Tag], used: int, pending: bool) -> ImageRow:
    names = names_of(tags)
    run_name = names[0] if names else image.short_id
    return ImageRow(
        image=image,
        base=f"/t/{team}/images/i/{image.short_id}/",
        names=names,
        run_name=run_name,
        run=_run(team, run_name),
        containers=used,
        pending=pending,
    )
