"""The documents an image is made of: descriptor, manifest, index, config.

Frozen values with `from_json` (ContentCorrupt, naming the field, on a wrong shape) and `to_json`
(canonical bytes). Docker's schema 2 has the same shape under other media types, and both are read
alike. Keys the specification does not know are kept in `extra`. What was pulled keeps its own
bytes: never write a document again to find its digest. Leaves choosing from an index to
engine.oci.platform, and fetching to engine.registry.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from engine.oci import media_types
from engine.oci.digest import Digest, chain_id, chain_ids
from engine.oci.fields import JSON, Fields, canonical, listed, present
from engine.oci.platform import Platform

__all__ = [
    "ContainerConfig",
    "Descriptor",
    "Healthcheck",
    "History",
    "ImageConfig",
    "ImageIndex",
    "Manifest",
    "Platform",
    "RootFS",
]

_NAME_PARTS = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")


class _Document(ABC):
    """What can be read from, and written as, one JSON object."""

    __slots__ = ()

    @classmethod
    @abstractmethod
    def read(cls, fields: Fields) -> Self:
        """Take this document's own keys out of `fields`, which names what is wrong."""

    @classmethod
    def from_json(cls, data: bytes | Mapping[str, JSON]) -> Self:
        """Raises ContentCorrupt naming the field."""
        return cls.read(Fields(data, _NAME_PARTS.sub(" ", cls.__name__).lower()))

    @abstractmethod
    def to_dict(self) -> dict[str, JSON]:
        """What `to_json` writes."""

    def to_json(self) -> bytes:
        """Sorted keys, compact, UTF-8: equal values give equal bytes."""
        return canonical(self.to_dict())


@dataclass(frozen=True, slots=True)
class Descriptor(_Document):
    """Points to content: its media type, digest and size in bytes (image-spec descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()
    artifact_type: str | None = None
    extra: Mapping[str, JSON] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Fields) -> Descriptor:
        return cls(
            media_type=fields.string("mediaType"),
            digest=fields.digest("digest"),
            size=fields.integer("size"),
            platform=fields.one("platform", Platform.read),
            annotations=fields.mapping("annotations"),
            urls=fields.strings("urls") or (),
            artifact_type=fields.optional("artifactType"),
            extra=fields.rest(),
        )

    def to_dict(self) -> dict[str, JSON]:
        return {
            **self.extra,
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
            **present(
                platform=self.platform.to_dict() if self.platform else None,
                annotations=dict(self.annotations),
                urls=list(self.urls),
                artifactType=self.artifact_type,
            ),
        }


@dataclass(frozen=True, slots=True)
class Manifest(_Document):
    """One image for one platform: its config and its layers, bottom first (manifest.md)."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = media_types.OCI_MANIFEST
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None
    subject: Descriptor | None = None
    extra: Mapping[str, JSON] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Fields) -> Manifest:
        _schema(fields, "layers", foreign=("manifests",))
        return cls(
            config=fields.required("config", Descriptor.read),
            layers=fields.many("layers", Descriptor.read),
            media_type=_media_type(fields, media_types.MANIFESTS, media_types.OCI_MANIFEST),
            annotations=fields.mapping("annotations"),
            artifact_type=fields.optional("artifactType"),
            subject=fields.one("subject", Descriptor.read),
            extra=fields.rest(),
        )

    def to_dict(self) -> dict[str, JSON]:
        return {
            **self.extra,
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
            **present(
                annotations=dict(self.annotations),
                artifactType=self.artifact_type,
                subject=self.subject.to_dict() if self.subject else None,
            ),
        }


@dataclass(frozen=True, slots=True)
class ImageIndex(_Document):
    """Manifests of one image for several platforms (image-index.md; Docker's manifest list)."""

    manifests: tuple[Descriptor, ...]
    media_type: str = media_types.OCI_INDEX
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None
    subject: Descriptor | None = None
    extra: Mapping[str, JSON] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Fields) -> ImageIndex:
        _schema(fields, "manifests", foreign=("config", "layers", "fsLayers"))
        return cls(
            manifests=fields.many("manifests", Descriptor.read),
            media_type=_media_type(fields, media_types.INDEXES, media_types.OCI_INDEX),
            annotations=fields.mapping("annotations"),
            artifact_type=fields.optional("artifactType"),
            subject=fields.one("subject", Descriptor.read),
            extra=fields.rest(),
        )

    def to_dict(self) -> dict[str, JSON]:
        return {
            **self.extra,
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [manifest.to_dict() for manifest in self.manifests],
            **present(
                annotations=dict(self.annotations),
                artifactType=self.artifact_type,
                subject=self.subject.to_dict() if self.subject else None,
            ),
        }


@dataclass(frozen=True, slots=True)
class RootFS(_Document):
    """The layers' diff_ids, bottom first: digests of the *uncompressed* tars."""

    diff_ids: tuple[Digest, ...] = ()

    @classmethod
    def read(cls, fields: Fields) -> RootFS:
        if fields.string("type", "layers") != "layers":
            fields.fail("type", "'layers'")
        return cls(fields.digests("diff_ids"))

    def to_dict(self) -> dict[str, JSON]:
        return {"type": "layers", "diff_ids": list(self.diff_ids)}

    @property
    def chain_ids(self) -> tuple[Digest, ...]:
        return chain_ids(self.diff_ids)

    @property
    def chain_id(self) -> Digest:
        """Raises InvalidInput where there is no layer."""
        return chain_id(self.diff_ids)


@dataclass(frozen=True, slots=True)
class History(_Document):
    """One instruction of the image's making; `empty_layer` where it changed metadata only."""

    created: str | None = None
    created_by: str | None = None
    comment: str | None = None
    author: str | None = None
    empty_layer: bool = False
    extra: Mapping[str, JSON] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Fields) -> History:
        return cls(
            created=fields.optional("created"),
            created_by=fields.optional("created_by"),
            comment=fields.optional("comment"),
            author=fields.optional("author"),
            empty_layer=fields.boolean("empty_layer"),
            extra=fields.rest(),
        )

    def to_dict(self) -> dict[str, JSON]:
        return {
            **self.extra,
            **present(
                created=self.created,
                created_by=self.created_by,
                comment=self.comment,
                author=self.author,
                empty_layer=self.empty_layer or None,
            ),
        }


@dataclass(frozen=True, slots=True)
class Healthcheck(_Document):
    """Docker's health check: `test` is ("NONE",), ("CMD", …) or ("CMD-SHELL", text).

    Times are nanoseconds; 0 and None mean inherited, or the default.
    """

    test: tuple[str, ...] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0
    extra: Mapping[str, JSON] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Fields) -> Healthcheck:
        return cls(
            test=fields.strings("Test"),
            interval=fields.integer("Interval", 0),
            timeout=fields.integer("Timeout", 0),
            start_period=fields.integer("StartPeriod", 0),
            start_interval=fields.integer("StartInterval", 0),
            retries=fields.integer("Retries", 0),
            extra=fields.rest(),
        )

    def to_dict(self) -> dict[str, JSON]:
        return {
            **self.extra,
            **present(
                Test=listed(self.test),
                Interval=self.interval or None,
                Timeout=self.timeout or None,
                StartPeriod=self.start_period or None,
                StartInterval=self.start_interval or None,
                Retries=self.retries or None,
            ),
        }


@dataclass(frozen=True, slots=True)
class ContainerConfig(_Document):
    """What a container of the image starts with (config.md "config", and Docker's additions).

    `env` is `NAME=value` each; `entrypoint`, `cmd` and `shell` are None where not set, which is
    not the same as empty. `exposed_ports` (`80/tcp`) and `volumes` (paths) are sorted.
    """

    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] | None = None
    extra: Mapping[str, JSON] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Fields) -> ContainerConfig:
        return cls(
            user=fields.string("User", ""),
            exposed_ports=fields.keys("ExposedPorts"),
            env=fields.strings("Env") or (),
            entrypoint=fields.strings("Entrypoint"),
            cmd=fields.strings("Cmd"),
            volumes=fields.keys("Volumes"),
            working_dir=fields.string("WorkingDir", ""),
            labels=fields.mapping("Labels"),
            stop_signal=fields.string("StopSignal", ""),
            healthcheck=fields.one("Healthcheck", Healthcheck.read),
            on_build=fields.strings("OnBuild") or (),
            shell=fields.strings("Shell"),
            extra=fields.rest(),
        )

    def to_dict(self) -> dict[str, JSON]:
        return {
            **self.extra,
            **present(
                User=self.user or None,
                ExposedPorts={port: {} for port in self.exposed_ports},
                Env=list(self.env),
                Entrypoint=listed(self.entrypoint),
                Cmd=listed(self.cmd),
                Volumes={path: {} for path in self.volumes},
                WorkingDir=self.working_dir or None,
                Labels=dict(self.labels),
                StopSignal=self.stop_signal or None,
                Healthcheck=self.healthcheck.to_dict() if self.healthcheck else None,
                OnBuild=list(self.on_build),
                Shell=listed(self.shell),
            ),
        }


@dataclass(frozen=True, slots=True)
class ImageConfig(_Document):
    """An image's config (config.md): platform, container defaults, layers, history.

    Its own digest is the image's id. `created` is RFC 3339 text.
    """

    platform: Platform
    rootfs: RootFS
    config: ContainerConfig = field(default_factory=ContainerConfig)
    history: tuple[History, ...] = ()
    created: str | None = None
    author: str | None = None
    extra: Mapping[str, JSON] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Fields) -> ImageConfig:
        return cls(
            platform=Platform.read_inline(fields),
            rootfs=fields.required("rootfs", RootFS.read),
            config=fields.one("config", ContainerConfig.read) or ContainerConfig(),
            history=fields.many("history", History.read),
            created=fields.optional("created"),
            author=fields.optional("author"),
            extra=fields.rest(),
        )

    def to_dict(self) -> dict[str, JSON]:
        return {
            **self.extra,
            **self.platform.to_dict(),
            "rootfs": self.rootfs.to_dict(),
            "config": self.config.to_dict(),
            **present(
                history=[entry.to_dict() for entry in self.history],
                created=self.created,
                author=self.author,
            ),
        }


def _schema(fields: Fields, content: str, foreign: tuple[str, ...]) -> None:
    version = fields.integer("schemaVersion")
    if version == 1:
        fields.fail("schemaVersion", f"2: schema 1 has no {content} and is no longer read")
    if version != 2:
        fields.fail("schemaVersion", "2")
    # One digest must not mean two things to two readers (CVE-2021-41190).
    for key in foreign:
        if fields.take(key) is not None:
            fields.fail(key, f"allowed beside {content}")


def _media_type(fields: Fields, known: frozenset[str], default: str) -> str:
    media_type = fields.string("mediaType", default)
    if media_type not in known:
        fields.fail("mediaType", f"one of {', '.join(sorted(known))}")
    return media_type
