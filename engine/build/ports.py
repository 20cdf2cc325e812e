"""What a build is asked for, what it stands on, and what it gives back.

The ports are for whoever calls: images come from the registry and the ORM, the cache from a
table, events go to a file. Leaves everything that happens to engine.build.solver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal, Protocol

from engine.build.cache import CacheStore
from engine.build.packed import PackedContext
from engine.config import EngineConfig
from engine.content import ContentStore
from engine.network.manager import NetworkManager
from engine.network.spec import NetworkSpec
from engine.oci.digest import Digest
from engine.oci.image import Descriptor, ImageConfig
from engine.runtime.oci_runtime import OCIRuntime
from engine.runtime.resources import Limits
from engine.runtime.rlimits import Ulimit
from engine.snapshots import Snapshotter

StepState = Literal["running", "cached", "built", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What RUN steps get besides what the Dockerfile says. `shm_bytes` None is the default size;
    `hosts` are (name, address) lines of /etc/hosts; without `connected` only the loopback."""

    limits: Limits = field(default_factory=Limits)
    ulimits: tuple[Ulimit, ...] = ()
    shm_bytes: int | None = None
    hosts: tuple[tuple[str, str], ...] = ()
    connected: bool = True


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """`build_id` names everything the build makes on this machine: letters, digits, `-` and `_`.

    `dockerfile` and `ignore` are texts. `position` says which earlier build this one continues
    (the tag): a miss is explained by comparing with it; empty explains nothing.
    """

    build_id: str
    context: Path | PackedContext
    dockerfile: str
    dockerfile_name: str = "Dockerfile"
    ignore: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    no_cache: bool = False
    pull: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    position: str = ""
    run: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True, slots=True)
class LayerProgress:
    """One layer of an image on its way; `kind` is "downloading", "extracting", "done" …"""

    digest: str
    current: int
    total: int
    kind: str


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image whose blobs are in the content store and whose layers are unpacked as snapshots
    named by their chain ids. `layers` bottom first, as `image_config.rootfs.diff_ids`."""

    config: Descriptor
    image_config: ImageConfig
    layers: tuple[Descriptor, ...]


class ImageSource(Protocol):
    """Finds images by name, for FROM and COPY --from."""

    def resolve(
        self,
        reference: str,
        pull: bool,
        progress: Callable[[LayerProgress], None],
        cancelled: Callable[[], bool],
    ) -> LocalImage:
        """The image here, fetched when it is not or when `pull` asks for the newest.

        `progress` may be called from several threads. The image MUST stay until the build ends.
        Raises RegistryError, NotFound, InvalidReference, Cancelled.
        """


class BuildLog(Protocol):
    """Takes the build's events (JSON-safe), in order; called from one thread at a time."""

    def event(self, event: Mapping[str, Any]) -> None: ...


class AddressLease(Protocol):
    """Addresses for RUN steps. `owner` is "build-ID": whoever reconciles gives back by it."""

    def acquire(self, network: NetworkSpec, owner: str) -> IPv4Address: ...

    def release(self, network: NetworkSpec, owner: str) -> None:
        """Idempotent."""


@dataclass(frozen=True, slots=True)
class BuildEngine:
    """The parts a build stands on. Without `network` (then `networks` and `addresses` are needed
    neither) RUN steps have their loopback only; it is asked for by the first step that runs."""

    config: EngineConfig
    content: ContentStore
    snapshots: Snapshotter
    runtime: OCIRuntime
    images: ImageSource
    cache: CacheStore
    networks: NetworkManager | None = None
    network: Callable[[], NetworkSpec] | None = None
    addresses: AddressLease | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step as it ended: `seconds` is its own time, 0 when taken from the cache."""

    n: int
    text: str
    line: int
    end_line: int
    state: StepState
    reason: Mapping[str, Any] | None
    seconds: float


@dataclass(frozen=True, slots=True)
class BuildResult:
    """`config.digest` is the image's id; `size` the bytes of manifest, config and layers;
    `base` the id of the image it came FROM, None for scratch."""

    manifest: Descriptor
    config: Descriptor
    image_config: ImageConfig
    layers: tuple[Descriptor, ...]
    size: int
    steps: tuple[StepResult, ...]
    base: Digest | None = None
