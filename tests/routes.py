"""Every address of the site, out of the URLconf, on rows that are there: what is added to the
URLconf is in these tests by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver

from console.permissions import Permission
from engine.models import Build, Container, Image, Operation, TerminalSession, Upload
from tests.unit.console_rows import Site, make_container, make_image, make_site


@dataclass(frozen=True, slots=True)
class Route:
    """`names`: what its address names besides the team. `permission` None: none is declared."""

    name: str
    address: str
    view: Callable[..., Any]
    names: frozenset[str]

    @property
    def permission(self) -> Permission | None:
        return getattr(self.view, "permission", None)

    @property
    def of_team(self) -> bool:
        return self.address.startswith("/t/")


@dataclass(frozen=True, slots=True)
class FullSite:
    """A site with one of everything an address can name. `site.client` is signed in."""

    site: Site
    image: Image
    container: Container
    session: TerminalSession
    build: Build
    upload: Upload
    pull: Operation

    def values(self) -> dict[str, str]:
        """By the route's name and the parameter's, or the parameter's alone."""
        return {
            "team": self.site.team.slug,
            "name": self.container.name,
            "session": str(self.session.pk),
            "number": str(self.build.number),
            "digest": self.image.short_id,
            "pull-cancel id": str(self.pull.pk),
            "id": str(self.upload.pk),
        }

    def routes(self, **changes: str) -> list[Route]:
        return list(_routes(get_resolver(), "/", {**self.values(), **changes}))


def full_site(slug: str = "harbour", **texts: str) -> FullSite:
    """`texts` go into the rows: what a person, an image or a registry may have said."""
    site = make_site(slug)
    text = texts.get("text", "plain")
    image = make_image(
        site,
        texts.get("image", "shop:latest"),
        Labels={text: text},
        Env=[f"WORD={text}"],
        Entrypoint=[text],
        User=text,
        WorkingDir=f"/{text}",
    )
    image.config["history"][0].update(created_by=text, comment=text)
    image.save()
    container = make_container(site, image, texts.get("name", "web"), state="running")
    Container.objects.filter(pk=container.pk).update(
        image_name=text,
        error={"id": "engine", "message": text, "hint": text, "context": {}},
        settings={
            "tty": True,
            "open_stdin": True,
            "env": [f"A={text}"],
            "cmd": [text],
            "entrypoint": [text],
            "labels": {text: text},
            "hostname": text,
            "user": text,
            "working_dir": text,
        },
    )
    container.refresh_from_db()
    failed = make_container(site, image, f"{container.name}-2", state="exited", exit_code=3)
    Container.objects.filter(pk=failed.pk).update(
        image_name=text, error={"id": "user", "message": text, "hint": text, "context": {}}
    )
    session = TerminalSession.objects.create(
        container=container, kind="exec", generation=0, owner_id=site.user.pk, argv=[text]
    )
    build = Build.objects.create(
        namespace=site.namespace,
        node=site.node,
        number=1,
        tag=texts.get("tag", "shop"),
        state="failed",
        dockerfile=f"FROM node\nRUN {text}\n# {text}\n",
        dockerfile_path=text,
        args={"A": text},
        image=image,
        error={"id": "step-failed", "message": text, "hint": text, "context": {"line": 2}},
        actor=site.actor,
    )
    upload = Upload.objects.create(
        namespace=site.namespace,
        user_id=site.user.pk,
        filename=text,
        format="tar",
        size=100,
    )
    pull = Operation.objects.create(
        kind=Operation.Kind.IMAGE_PULL,
        namespace=site.namespace,
        actor=f"local:{text}",
        args={"reference": text},
        progress={
            "reference": text,
            "layers": [{"digest": text, "kind": text, "current": 1, "total": 2}],
        },
        error={"id": "registry", "message": text, "hint": text, "context": {}},
    )
    return FullSite(site, image, container, session, build, upload, pull)


def _routes(resolver: URLResolver, prefix: str, values: Mapping[str, str]) -> Iterator[Route]:
    for entry in resolver.url_patterns:
        address = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from _routes(entry, address, values)
        else:
            names = frozenset(entry.pattern.converters) - {"team"}
            yield Route(entry.name or "", _filled(entry, address, values), entry.callback, names)


def _filled(entry: URLPattern, address: str, values: Mapping[str, str]) -> str:
    while "<" in address:
        before, _, rest = address.partition("<")
        placeholder, _, after = rest.partition(">")
        parameter = placeholder.rpartition(":")[2]
        value = values.get(f"{entry.name} {parameter}") or values[parameter]
        address = before + value + after
    return address
