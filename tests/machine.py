"""One home on this machine for tests: containers of a busybox image, all taken away at the end."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.containers.attach import Attach
from engine.containers.attempts import Attempt, Exit, Started
from engine.containers.layout import ContainerDir
from engine.containers.lifecycle import Containers
from engine.containers.logs import LogReader, decode_tty
from engine.containers.options import HostOptions, Mount
from engine.containers.plumbing import Network
from engine.containers.settings import ContainerSettings
from engine.containers.volumes import VolumeAt, Volumes
from engine.runtime import cgroups
from engine.runtime.inotify import CREATE, MODIFY, MOVED_TO, Inotify
from engine.runtime.oci_runtime import OCIRuntime
from engine.runtime.processes import wait
from engine.snapshots.overlay import OverlaySnapshotter
from tests.rootfs import make_rootfs

IMAGE = "sha256:" + "1" * 64


class Machine:
    """A home with one image (`chain`), and containers made from it."""

    def __init__(self, home: Path) -> None:
        self.config = EngineConfig(home=home)
        self.snapshots = OverlaySnapshotter(self.config.snapshots_dir)
        self.runtime = OCIRuntime(self.config.run_dir / "runtime", self.config.cgroup_parent)
        self.volumes: dict[str, dict[str, VolumeAt]] = {}
        self.use(None)
        self.chain = "sha256:" + "2" * 64
        self.snapshots.prepare("base", None)
        root = make_rootfs(self.snapshots.upper("base"))
        seeded = root / "seeded"
        seeded.mkdir(mode=0o750)
        (seeded / "file").write_text("seed\n")
        shutil.chown(seeded, 1000, 1000)
        self.snapshots.commit("base", self.chain)

    def use(self, network: Network | None) -> None:
        self.containers = Containers(self.config, self.snapshots, self.runtime, network)

    def derive(self, change: Callable[[Path], None]) -> str:
        """The chain of an image with one more layer, which `change` fills."""
        name = "sha256:" + secrets.token_hex(32)
        self.snapshots.prepare("derived", self.chain)
        self.snapshots.upper("derived").chmod(0o755)
        change(self.snapshots.upper("derived"))
        self.snapshots.commit("derived", name)
        return name

    def create(self, script: str, **changes: Any) -> str:
        """A container that runs `script`; any field of its settings may be given. `volumes` get
        an anonymous volume each."""
        values: dict[str, Any] = {
            "id": secrets.token_hex(32),
            "name": "test",
            "image": IMAGE,
            "chain": self.chain,
            "cmd": ("/bin/sh", "-c", script),
            **changes,
        }
        host: HostOptions = values.pop("host", HostOptions())
        anonymous = tuple(Mount("volume", path) for path in values.get("volumes", ()))
        settings = ContainerSettings(
            **values, host=replace(host, mounts=(*host.mounts, *anonymous))
        )
        volumes = {
            mount.destination: VolumeAt(secrets.token_hex(16))
            for mount in settings.host.mounts
            if mount.type == "volume"
        }
        self.volumes[settings.id] = volumes
        self.containers.create(settings, volumes)
        return settings.id

    def volume(self, id: str, path: str) -> Path:
        """Where the files lie of the volume at `path`."""
        return Volumes(self.config).data(self.volumes[id][path].key)

    def start(self, id: str, generation: int = 1, **more: Any) -> Started:
        return self.containers.start(id, generation, volumes=self.volumes.get(id, {}), **more)

    def finish(self, id: str, generation: int = 1) -> Exit:
        """Wait for its end, then clean up."""
        conmon = Attempt(self.directory(id).exits(generation), id).processes()[0]
        assert conmon is None or conmon.wait(20)
        ended = self.containers.finish(id, generation)
        assert ended is not None
        return ended

    def directory(self, id: str) -> ContainerDir:
        return ContainerDir(self.config, id)

    def log(self, folder: Path) -> bytes:
        with LogReader(folder) as reader:
            return decode_tty(reader.read(reader.bounds()[0], 1 << 26).data)[0]

    def wait_for(self, id: str, text: bytes, seconds: float = 10) -> None:
        self.wait_for_log(self.directory(id).log, text, seconds)

    def wait_for_log(self, folder: Path, text: bytes, seconds: float = 10) -> None:
        """Until `text` is in the log."""
        deadline = time.monotonic() + seconds
        with Inotify() as watch:
            watch.add(folder, CREATE | MODIFY | MOVED_TO)
            while text not in self.log(folder):
                assert wait(watch.fileno(), deadline - time.monotonic()), self.log(folder)
                watch.read()

    def type(self, id: str, data: bytes) -> None:
        """On the terminal or stdin of the container's own process."""
        with Attach.connect(self.directory(id).bundle) as attached:
            attached.setblocking(True)
            attached.send(data)

    def mounted(self, id: str) -> bool:
        return any(target == self.directory(id).rootfs for _, target in self.snapshots.mounts())

    def scratch(self, chain: str = "") -> tuple[str, Path]:
        """A writable snapshot of the image, mounted: its key and where. `close` unmounts it."""
        key = f"scratch-{secrets.token_hex(4)}"
        target = self.config.home / key
        target.mkdir()
        self.snapshots.prepare(key, chain or self.chain)
        self.snapshots.mount(key, target)
        return key, target

    def clear(self) -> None:
        """Kill, unmount and forget every container and scratch."""
        for id in self.containers.list_on_disk():
            for generation in self.directory(id).attempts():
                self.containers.stop(id, generation, 9, 0)
                self.containers.finish(id, generation)
            self.containers.remove(id)
        for key, target in list(self.snapshots.mounts()):
            self.snapshots.unmount(target)
            self.snapshots.remove(key)

    def close(self) -> None:
        self.clear()
        top = f"/{self.config.cgroup_parent}"
        cgroups.kill(top)
        assert cgroups.wait_empty(top, 10)
        cgroups.remove_tree(top)


@pytest.fixture(scope="session")
def one_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("machine") / "home")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def machine(one_machine: Machine) -> Iterator[Machine]:
    """The session's one home, without any container before and after."""
    try:
        yield one_machine
    finally:
        one_machine.clear()
