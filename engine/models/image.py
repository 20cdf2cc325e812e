"""Image rows and the names that point at them. Blobs and layers lie in the content store."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from engine.models.scope import Namespace


class ImageQuerySet(models.QuerySet["Image"]):
    def for_namespace(self, namespace: Namespace) -> ImageQuerySet:
        return self.filter(namespace=namespace)

    def search(self, text: str) -> ImageQuerySet:
        """By part of a repository or tag, or the beginning of an id."""
        text = text.strip().removeprefix("sha256:")
        if not text:
            return self
        return self.filter(
            Q(tags__repository__icontains=text)
            | Q(tags__tag__icontains=text)
            | Q(digest__startswith=f"sha256:{text}")
        ).distinct()


class Image(models.Model):
    """`digest` is the config's (what Docker calls the image id); the same content in two
    namespaces is two rows over one set of blobs."""

    namespace = models.ForeignKey(Namespace, on_delete=models.CASCADE, related_name="images")
    digest = models.CharField(max_length=71)
    manifest_digest = models.CharField(max_length=71)
    size = models.BigIntegerField(help_text="bytes of all layers, unpacked where known")
    os = models.CharField(max_length=20, default="linux")
    architecture = models.CharField(max_length=20)
    config = models.JSONField(help_text="the OCI image config, whole")
    layers = models.JSONField(help_text="[{digest, diff_id, size, media_type}] from the bottom up")
    created_at = models.DateTimeField(help_text="when it was made, by its config")
    added_at = models.DateTimeField(auto_now_add=True)

    objects = ImageQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["namespace", "digest"], name="image_once_a_namespace")
        ]
        indexes = [models.Index(fields=["namespace", "-added_at"])]

    def __str__(self) -> str:
        return self.short_id

    @property
    def short_id(self) -> str:
        """Twelve hex digits, as `docker images` shows."""
        return self.digest.removeprefix("sha256:")[:12]


# Only a digest begins so: a tag has no colon.
_DIGEST = "sha256:"


class TagManager(models.Manager["Tag"]):
    """What people named."""

    def get_queryset(self) -> models.QuerySet[Tag]:
        return super().get_queryset().exclude(tag__startswith=_DIGEST)


class DigestManager(models.Manager["Tag"]):
    """What a registry calls it: Docker's RepoDigests, of what was pulled or pushed."""

    def get_queryset(self) -> models.QuerySet[Tag]:
        return super().get_queryset().filter(tag__startswith=_DIGEST)


class Tag(models.Model):
    """`repository` is canonical (docker.io/library/node); several tags may name one image.

    As in Docker's reference store a digest is a name too: its row has `sha256:…` in `tag`, and is
    found by `digests` (an image's: `image.tags(manager="digests")`), never among `objects`."""

    namespace = models.ForeignKey(Namespace, on_delete=models.CASCADE, related_name="tags")
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="tags")
    repository = models.CharField(max_length=255)
    tag = models.CharField(max_length=128)
    updated_at = models.DateTimeField(auto_now=True)

    objects = TagManager()
    digests = DigestManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["namespace", "repository", "tag"], name="tag_once_a_namespace"
            )
        ]
        ordering = ["repository", "tag"]

    def __str__(self) -> str:
        return self.familiar

    @property
    def familiar(self) -> str:
        """As people write it: node:latest for docker.io/library/node:latest."""
        name = self.repository.removeprefix("docker.io/").removeprefix("library/")
        return f"{name}{'@' if self.tag.startswith(_DIGEST) else ':'}{self.tag}"
