"""Containers, their published ports, and the networks they sit on."""

from __future__ import annotations

import secrets

from django.db import models
from django.db.models import Q

from engine.models.image import Image
from engine.models.scope import Namespace, Node


def new_id() -> str:
    """64 hex digits, as Docker's ids."""
    return secrets.token_hex(32)


class Network(models.Model):
    """A bridge. `ip_range` (within the subnet, "" for all of it) is where addresses are taken."""

    uid = models.CharField(max_length=64, unique=True, default=new_id, help_text="Docker's id")
    namespace = models.ForeignKey(Namespace, on_delete=models.CASCADE, related_name="networks")
    name = models.CharField(max_length=255)
    subnet = models.CharField(max_length=18, unique=True)
    gateway = models.GenericIPAddressField(protocol="IPv4")
    bridge = models.CharField(max_length=15, unique=True)
    ip_range = models.CharField(max_length=18, blank=True)
    internal = models.BooleanField(default=False)
    attachable = models.BooleanField(default=False)
    labels = models.JSONField(default=dict)
    options = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["namespace", "name"], name="network_once_a_namespace")
        ]

    def __str__(self) -> str:
        return self.name


class ContainerQuerySet(models.QuerySet["Container"]):
    def for_namespace(self, namespace: Namespace) -> ContainerQuerySet:
        return self.filter(namespace=namespace)

    def running(self) -> ContainerQuerySet:
        return self.filter(state=Container.State.RUNNING)

    def lookup(self, name_or_id: str) -> list[Container]:
        """The one of this full id, else of this name; where there is none, those whose id begins
        so, two at most (moby daemon GetContainer).

        Each docker command asks this several times: one query where the name is whole."""
        exact = list(self.filter(Q(uid=name_or_id) | Q(name=name_or_id))[:2])
        if exact:
            return [next((one for one in exact if one.uid == name_or_id), exact[0])]
        return list(self.filter(uid__startswith=name_or_id)[:2]) if name_or_id else []

    def search(self, text: str) -> ContainerQuerySet:
        text = text.strip()
        if not text:
            return self
        return self.filter(
            Q(name__icontains=text) | Q(image_name__icontains=text) | Q(uid__startswith=text)
        )


class Container(models.Model):
    """`state` has Docker's words. `generation` counts starts: what is known of an older one
    (an exit, a clean-up) is ignored by whoever holds the container directory's lock."""

    class State(models.TextChoices):
        CREATED = "created"
        RUNNING = "running"
        PAUSED = "paused"
        RESTARTING = "restarting"
        REMOVING = "removing"
        EXITED = "exited"
        DEAD = "dead"

    uid = models.CharField(max_length=64, unique=True, help_text="64 hex digits: Docker's id")
    namespace = models.ForeignKey(Namespace, on_delete=models.CASCADE, related_name="containers")
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="containers")
    name = models.CharField(max_length=128)
    image = models.ForeignKey(
        Image, null=True, on_delete=models.SET_NULL, related_name="containers"
    )
    image_name = models.CharField(max_length=512, help_text="as it was asked for")
    settings = models.JSONField(help_text="engine.containers.ContainerSettings as JSON")
    state = models.CharField(max_length=12, choices=State.choices, default=State.CREATED)
    generation = models.PositiveIntegerField(default=0)
    pid = models.PositiveIntegerField(null=True)
    exit_code = models.IntegerField(null=True)
    error = models.JSONField(null=True, help_text="why the last start failed or the container died")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    oom_killed = models.BooleanField(default=False)
    stopped_by_hand = models.BooleanField(
        default=False, help_text="its last end was asked for: no restart policy undoes it"
    )
    restart_count = models.PositiveIntegerField(default=0)
    restart_at = models.DateTimeField(null=True, help_text="when its policy starts it again")
    health = models.JSONField(
        null=True, help_text="{status, failing_streak, log: [{start, end, exit_code, output}]}"
    )

    objects = ContainerQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["namespace", "name"], name="container_once_a_namespace")
        ]
        indexes = [
            models.Index(fields=["namespace", "state"]),
            models.Index(fields=["namespace", "-created_at"]),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def short_id(self) -> str:
        return self.uid[:12]

    @property
    def is_running(self) -> bool:
        return self.state in (self.State.RUNNING, self.State.PAUSED)

    @property
    def is_up(self) -> bool:
        """Runs, or will again in a moment by its restart policy: what can be stopped."""
        return self.is_running or self.state == self.State.RESTARTING

    @property
    def tty(self) -> bool:
        return bool(self.settings.get("tty"))

    @property
    def open_stdin(self) -> bool:
        return bool(self.settings.get("open_stdin"))


class Endpoint(models.Model):
    """A place on a network: a container's, or one lent to a build for its RUN steps (`owner`
    "build-ID"). One that was not asked for has its address from a start to the end of that."""

    network = models.ForeignKey(Network, on_delete=models.CASCADE, related_name="endpoints")
    container = models.ForeignKey(
        Container, null=True, on_delete=models.CASCADE, related_name="endpoints"
    )
    owner = models.CharField(max_length=40, blank=True)
    uid = models.CharField(max_length=64, default=new_id, help_text="Docker's endpoint id")
    address = models.GenericIPAddressField(protocol="IPv4", null=True)
    mac = models.CharField(max_length=17, blank=True)
    names = models.JSONField(default=list, help_text="aliases, besides the name and the short id")
    fixed = models.BooleanField(default=False, help_text="the address was asked for")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["network", "address"], name="address_once_a_network"),
            models.UniqueConstraint(fields=["network", "container"], name="endpoint_once"),
        ]

    def __str__(self) -> str:
        return self.address or "no address"


class Port(models.Model):
    """`host_port` is what was asked for (0: any free one), `published_port` what it is now."""

    container = models.ForeignKey(Container, on_delete=models.CASCADE, related_name="ports")
    container_port = models.PositiveIntegerField()
    protocol = models.CharField(max_length=3, default="tcp")
    host_ip = models.GenericIPAddressField(protocol="IPv4", default="0.0.0.0")
    host_port = models.PositiveIntegerField(default=0)
    published_port = models.PositiveIntegerField(null=True)

    class Meta:
        ordering = ["container_port", "protocol", "host_port"]

    def __str__(self) -> str:
        return f"{self.host_ip}:{self.published_port or self.host_port}->{self.container_port}"
