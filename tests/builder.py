"""A home that builds: a busybox base image, a cache in memory, and a log that is kept."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from engine.build.cache import CacheEntry, Layer
from engine.build.export import make_layer, write_image
from engine.build.ports import BuildEngine, BuildRequest, BuildResult, LayerProgress, LocalImage
from engine.build.scope import Scope
from engine.build.solver import build
from engine.build.state import StageState
from engine.config import EngineConfig
from engine.content import ContentStore
from engine.errors import RegistryNotFound
from engine.network.addresses import next_address
from engine.network.manager import NetworkManager
from engine.network.spec import NetworkSpec
from engine.oci import platform
from engine.oci.digest import Digest, chain_id
from engine.oci.image import ContainerConfig, Manifest
from engine.runtime import cgroups
from engine.runtime.oci_runtime import OCIRuntime
from engine.snapshots import OverlaySnapshotter
from tests.rootfs import GROUP, PASSWD, busybox

BASE_EPOCH = 1_700_000_000


APPLETS = (
    "cat chmod chown cp date echo env false id ip kill ln ls mkdir mkfifo mv nc nslookup ping rm "
    "sed sh sleep sort touch true wget"
).split()


def make_base(root: Path) -> None:
    """A small busybox system: fewer links than `tests.rootfs`, for it is made for every test."""
    for name in ("bin", "etc", "home/app", "proc", "root", "sys", "dev", "tmp", "usr"):
        (root / name).mkdir(parents=True)
    shutil.copy2(busybox(), root / "bin/busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)


class MemoryCache:
    """A CacheStore; every entry goes through JSON, as it does with rows."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.positions: dict[str, str] = {}

    def expect(self, keys: Collection[str]) -> None:
        """It has them all at hand."""

    def get(self, key: str) -> CacheEntry | None:
        text = self.entries.get(key)
        return CacheEntry.from_json(json.loads(text)) if text else None

    def put(self, entry: CacheEntry) -> None:
        self.entries[entry.key] = json.dumps(entry.to_json())
        if entry.position:
            self.positions[entry.position] = entry.key

    def last(self, position: str) -> CacheEntry | None:
        key = self.positions.get(position)
        return self.get(key) if key else None


@dataclass
class Images:
    """An ImageSource over what tests have put in; `pulled` lists what was asked for."""

    known: dict[str, LocalImage] = field(default_factory=dict)
    progress: tuple[LayerProgress, ...] = ()
    pulled: list[str] = field(default_factory=list)

    def resolve(
        self,
        reference: str,
        pull: bool,
        progress: Callable[[LayerProgress], None],
        cancelled: Callable[[], bool],
    ) -> LocalImage:
        if pull:
            self.pulled.append(reference)
        for layer in self.progress:
            progress(layer)
        try:
            return self.known[reference]
        except KeyError as error:
            raise RegistryNotFound(f"no image {reference}", hint="look at its name") from error


@dataclass
class Leases:
    """An AddressLease in memory."""

    held: dict[str, IPv4Address] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def acquire(self, network: NetworkSpec, owner: str) -> IPv4Address:
        self.asked.append(owner)
        self.held[owner] = next_address(network.subnet, list(self.held.values()))
        return self.held[owner]

    def release(self, network: NetworkSpec, owner: str) -> None:
        self.held.pop(owner, None)


@dataclass
class Log:
    """A BuildLog that keeps the events; `on` may watch them as they come."""

    events: list[dict[str, Any]] = field(default_factory=list)
    on: Callable[[Mapping[str, Any]], None] = lambda event: None

    def event(self, event: Mapping[str, Any]) -> None:
        self.events.append(json.loads(json.dumps(event)))
        self.on(event)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["t"] == kind]

    @property
    def output(self) -> str:
        return "".join(event["d"] for event in self.of("out"))

    def said(self, stream: int) -> str:
        """What came on stdout (1) or stderr (2)."""
        return "".join(event["d"] for event in self.of("out") if event["s"] == stream)

    @property
    def states(self) -> list[str]:
        """The last state of each step, in order."""
        found = {event["n"]: event["state"] for event in self.of("step")}
        return [found[n] for n in sorted(found)]

    def reason(self, n: int) -> dict[str, Any]:
        """Of the step as it was built."""
        return next(
            event["reason"]
            for event in self.of("step")
            if event["n"] == n and event["state"] in ("running", "built") and "reason" in event
        )


@dataclass
class Built:
    result: BuildResult
    log: Log
    seconds: float

    @property
    def states(self) -> list[str]:
        return [step.state for step in self.result.steps]

    @property
    def image(self) -> str:
        return str(self.result.config.digest)

    @property
    def config(self) -> ContainerConfig:
        return self.result.image_config.config


class Builder:
    """`base` is in the images as a small busybox image with a user `app` (1000)."""

    def __init__(self, home: Path, network: NetworkSpec | None = None) -> None:
        self.config = EngineConfig(home=home)
        self.content = ContentStore(self.config.content_dir)
        self.snapshots = OverlaySnapshotter(self.config.snapshots_dir)
        self.runtime = OCIRuntime(self.config.run_dir / "runtime", self.config.cgroup_parent)
        self.cache = MemoryCache()
        self.images = Images()
        self.leases = Leases()
        self.networks = NetworkManager(self.config) if network else None
        self.engine = BuildEngine(
            config=self.config,
            content=self.content,
            snapshots=self.snapshots,
            runtime=self.runtime,
            images=self.images,
            cache=self.cache,
            networks=self.networks,
            network=(lambda: network) if network else None,
            addresses=self.leases,
        )
        self.context = home / "context"
        self.context.mkdir()
        self._builds = 0
        self._mounted = 0
        self.images.known["base"] = self.make_image(make_base)

    def make_image(
        self, fill: Callable[[Path], object], config: ContainerConfig | None = None
    ) -> LocalImage:
        """An image of one layer, filled by a function."""
        self.snapshots.prepare("make-image", None)
        fill(self.snapshots.upper("make-image"))
        layer = make_layer(self.snapshots, self.content, "make-image", BASE_EPOCH)
        layers: tuple[Layer, ...] = ()
        chain: Digest | None = None
        if layer is not None:
            layers, chain = (layer,), chain_id([layer.diff_id])
            self.snapshots.commit("make-image", chain)
        else:
            self.snapshots.remove("make-image")
        state = StageState(
            key="",
            platform=platform.host(),
            scope=Scope({}, {}),
            config=config or ContainerConfig(),
            layers=layers,
            chain=chain,
            created="2023-11-14T22:13:20Z",
        )
        _, described, image, manifest = write_image(self.content, state)
        return LocalImage(described, image, manifest.layers)

    def as_image(self, built: Built) -> LocalImage:
        """What was built, to be used by FROM."""
        return LocalImage(built.result.config, built.result.image_config, built.result.layers)

    def write(self, **files: str | bytes) -> None:
        """Files of the context: `a__b_txt` would be ugly, so names go through `put`."""
        for name, content in files.items():
            self.put(name, content)

    def put(self, name: str, content: str | bytes = "", mode: int = 0o644) -> Path:
        path = self.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def build(
        self,
        dockerfile: str,
        *,
        cancelled: threading.Event | None = None,
        log: Log | None = None,
        **changes: Any,
    ) -> Built:
        self._builds += 1
        log = log or Log()
        values: dict[str, Any] = {
            "build_id": str(self._builds),
            "context": self.context,
            "position": "app:latest",
            **changes,
        }
        self.log = log
        begin = time.monotonic()
        result = build(
            BuildRequest(dockerfile=dockerfile, **values),
            self.engine,
            log,
            cancelled or threading.Event(),
        )
        return Built(result, log, time.monotonic() - begin)

    def tree(self, built: Built | LocalImage) -> Tree:
        """The image's files, mounted until the builder is closed."""
        image = built.result.image_config if isinstance(built, Built) else built.image_config
        self._mounted += 1
        target = self.config.home / f"tree-{self._mounted}"
        target.mkdir()
        if image.rootfs.diff_ids:
            self.snapshots.view_mount(image.rootfs.chain_id, target)
        return Tree(target)

    def manifest(self, built: Built) -> Manifest:
        return Manifest.from_json(self.content.read(built.result.manifest.digest))

    def leftovers(self) -> list[str]:
        """What builds have left on the machine, other than committed layers: should be nothing."""
        trees = {self.config.home / f"tree-{n + 1}" for n in range(self._mounted)}
        found = [str(t) for _, t in self.snapshots.mounts() if t not in trees and self._ours(t)]
        found += [one.name for one in self.snapshots.walk() if one.kind == "active"]
        found += sorted(cgroups.children(f"/{self.config.cgroup_parent}"))
        found += sorted(self.runtime.list())
        found += [str(path) for path in self.config.builds_dir.glob("*/work")]
        found += list(self.leases.held)
        return found

    def _ours(self, target: Path) -> bool:
        return target.is_relative_to(self.config.home)

    def close(self) -> None:
        for _, target in list(self.snapshots.mounts()):
            if self._ours(target):
                self.snapshots.unmount(target)
        top = f"/{self.config.cgroup_parent}"
        cgroups.kill(top)
        assert cgroups.wait_empty(top, 10)
        cgroups.remove_tree(top)
        if self.networks is not None:
            self.networks.release_all()


class Tree:
    """An image's root to look at."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __truediv__(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str:
        return (self / name).read_text()

    def names(self, name: str = "/") -> list[str]:
        """Everything below, relative, sorted."""
        top = self / name
        return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    home = tmp_path / "home"
    home.mkdir()
    made = Builder(home)
    try:
        yield made
        left = made.leftovers()
    finally:
        made.close()
    assert left == []
