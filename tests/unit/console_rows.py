"""Rows for the console's tests: a team with somebody signed in, images, containers, builds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.test import Client
from django.utils import timezone

from console.models import Team, User
from engine.models import Build, Container, Image, Namespace, Node, Port
from engine.oci.reference import Reference
from engine.services.images import image_record
from engine.services.namespaces import namespace_create

PASSWORD = "a quay of one's own"


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Site:
    """`client` is signed in as `user`; `base` is /t/TEAM/."""

    client: Client
    user: User
    team: Team
    namespace: Namespace
    node: Node

    @property
    def base(self) -> str:
        return f"/t/{self.team.slug}/"

    @property
    def actor(self) -> str:
        return f"user:{self.user.pk}"


def make_site(slug: str = "harbour") -> Site:
    namespace = namespace_create(slug)
    team = Team.objects.create(slug=slug, name="Harbour crew", namespace=namespace)
    user = User.objects.create_user(f"ada-{slug}")
    client = Client()
    client.force_login(user)
    return Site(client, user, team, namespace, Node.objects.get_or_create(name="local")[0])


def make_image(site: Site, name: str = "shop:latest", **config: Any) -> Image:
    """Two layers and one instruction that made none."""
    stack = [digest("base"), digest(name)]
    return image_record(
        site.namespace,
        digest=digest(f"config {name}"),
        manifest_digest=digest(f"manifest {name}"),
        config={
            "os": "linux",
            "architecture": "amd64",
            "created": "2026-11-01T10:00:00Z",
            "config": {"Cmd": ["node", "server.js"], "ExposedPorts": {"80/tcp": {}}, **config},
            "history": [
                {"created_by": "/bin/sh -c #(nop) ADD file:1 in / "},
                {"created_by": "/bin/sh -c npm install"},
                {"created_by": "EXPOSE 80", "empty_layer": True},
            ],
            "rootfs": {"type": "layers", "diff_ids": stack},
        },
        layers=[
            {"digest": layer, "diff_id": layer, "size": 1_000_000, "media_type": "x"}
            for layer in stack
        ],
        names=(Reference.parse(name),),
    )


def make_container(site: Site, image: Image, name: str, **fields: Any) -> Container:
    return Container.objects.create(
        uid=hashlib.sha256(f"{site.team.slug} {name}".encode()).hexdigest(),
        namespace=site.namespace,
        node=site.node,
        name=name,
        image=image,
        image_name="shop:latest",
        settings={"tty": False, "open_stdin": False, "env": ["A=1"], "cmd": ["node"]},
        **fields,
    )


def make_many(site: Site, count: int) -> Image:
    """`count` containers, half of them running with a published port, and as many builds."""
    image = make_image(site)
    now = timezone.now()
    containers = Container.objects.bulk_create(
        Container(
            uid=hashlib.sha256(f"many {n}".encode()).hexdigest(),
            namespace=site.namespace,
            node=site.node,
            name=f"web-{n}",
            image=image,
            image_name="shop:latest",
            settings={},
            state="running" if n % 2 else "exited",
            exit_code=None if n % 2 else n % 3,
            started_at=now - timedelta(minutes=n + 1),
            finished_at=None if n % 2 else now,
        )
        for n in range(count)
    )
    Port.objects.bulk_create(
        Port(container=c, container_port=80, host_port=3000, published_port=3000)
        for c in containers
        if c.state == "running"
    )
    Build.objects.bulk_create(
        Build(
            namespace=site.namespace,
            node=site.node,
            number=n + 1,
            tag=f"shop:{n}",
            state="done",
            image=image,
            dockerfile="FROM scratch\n",
            started_at=now,
            finished_at=now,
        )
        for n in range(count)
    )
    return image
