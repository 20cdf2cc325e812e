"""Collecting garbage beside pulls, builds and containers: nothing that is needed goes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.content import ContentStore
from engine.errors import ContentCorrupt
from engine.images.gc import Collected, Referenced, collect, names_of
from engine.images.leases import Leases
from engine.images.pull import PulledImage, pull
from engine.images.unpack import unpack
from engine.oci.digest import Digest
from engine.oci.image import Manifest
from engine.oci.reference import Reference
from engine.registry import RegistryClient
from engine.snapshots import OverlaySnapshotter
from tests.registry import RegistryServer, push_image, running_registry, tar_of

BASE = [tar_of({"base": b"base"}), tar_of({"middle": b"middle"})]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        push_image(running, "library/base", layers=BASE, index=True)
        push_image(running, "library/app", layers=[*BASE, tar_of({"app": b"app"})])
        yield running


class Engine:
    def __init__(self, folder: Path, server: RegistryServer) -> None:
        self.content = ContentStore(folder / "content")
        self.snapshots = OverlaySnapshotter(folder / "snapshots")
        self.leases = Leases(folder / "leases")
        self.server = server
        self.rows: set[Digest] = set()
        self.names: set[str] = set()

    def pull(self, name: str, *, row: bool = True) -> PulledImage:
        client = RegistryClient("docker.io", mirrors=[self.server.url])
        with client, self.leases.take() as lease:
            image = pull(
                Reference.parse(name),
                client=client,
                content=self.content,
                snapshots=self.snapshots,
                lease=lease,
            )
            if row:
                self.rows.add(image.resolved.digest)
        return image

    def collect(self, grace_seconds: float = 0) -> Collected:
        return collect(
            self.content,
            self.snapshots,
            self.leases,
            lambda: Referenced(frozenset(self.rows), frozenset(self.names)),
            grace_seconds=grace_seconds,
        )

    def blobs(self) -> set[str]:
        return {info.digest for info in self.content.walk()}

    def layers(self) -> set[str]:
        return {info.name for info in self.snapshots.walk()}


@pytest.fixture
def engine(tmp_path: Path, server: RegistryServer) -> Engine:
    return Engine(tmp_path, server)


def test_what_rows_name_stays_and_the_rest_goes(engine: Engine) -> None:
    base, app = engine.pull("base"), engine.pull("app")
    assert engine.collect() == Collected(0, 0, 0)
    engine.rows.remove(app.resolved.digest)
    before = engine.blobs()
    removed = engine.collect()
    gone = {app.manifest.digest, app.config.digest, app.layers[2].digest}
    assert before - engine.blobs() == gone
    assert engine.layers() == set(base.chain_ids)  # shared with the other image
    assert removed.blobs == 3
    assert removed.snapshots == 1
    assert removed.bytes > 0
    engine.rows.clear()
    engine.collect()
    assert engine.blobs() == set()
    assert engine.layers() == set()
    assert engine.pull("app") == app


def test_an_index_keeps_its_own_image(engine: Engine) -> None:
    base = engine.pull("base")
    assert base.resolved != base.manifest
    names = names_of(engine.content, [base.resolved.digest])
    assert {base.manifest.digest, base.config.digest, *base.chain_ids} <= names
    assert engine.collect() == Collected(0, 0, 0)


def test_a_container_and_the_build_cache_keep_their_layers(engine: Engine) -> None:
    app = engine.pull("app", row=False)
    engine.snapshots.prepare("container-1", app.chain_ids[2])
    engine.collect()
    assert engine.layers() == {"container-1", *app.chain_ids}
    assert engine.blobs() == set()
    engine.snapshots.remove("container-1")
    engine.names.add(app.chain_ids[1])
    engine.collect()
    assert engine.layers() == set(app.chain_ids[:2])


def test_a_lease_keeps_what_has_no_row_yet(engine: Engine) -> None:
    app = engine.pull("app", row=False)
    with engine.leases.take() as lease:
        lease.keep(*names_of(engine.content, [app.manifest.digest]))
        assert engine.collect() == Collected(0, 0, 0)
    engine.collect()
    assert engine.layers() == set()


def test_what_was_made_without_a_lease_has_its_grace(engine: Engine) -> None:
    engine.pull("app", row=False)
    assert engine.collect(grace_seconds=60) == Collected(0, 0, 0)


def test_a_dead_process_holds_no_lease_and_leaves_no_half_layer(
    engine: Engine, tmp_path: Path
) -> None:
    app = engine.pull("app", row=False)
    program = (
        "import os, sys; from pathlib import Path; from engine.images.leases import Leases\n"
        "with Leases(Path(sys.argv[1])).take() as lease:\n"
        "    lease.keep(*sys.argv[2:]); print(lease.id, flush=True); os._exit(9)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "leases"), *app.chain_ids]
    found = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert found.returncode == 9, found.stderr
    engine.snapshots.prepare(f"extract-{found.stdout.strip()}-1", app.chain_ids[2])
    with engine.leases.take() as lease:
        engine.snapshots.prepare(f"extract-{lease.id}-1", None)
        engine.collect()
        assert engine.layers() == {f"extract-{lease.id}-1"}
        assert [path.name for path in (tmp_path / "leases").iterdir() if path.name != "lock"] == [
            lease.id
        ]


def test_a_manifest_that_cannot_be_read_stops_it_before_anything_goes(engine: Engine) -> None:
    app = engine.pull("app")
    engine.pull("base", row=False)
    before = engine.blobs(), engine.layers()
    path = engine.content.path(app.manifest.digest)
    path.chmod(0o600)
    path.write_bytes(b"{}")
    with pytest.raises(ContentCorrupt):
        engine.collect()
    assert (engine.blobs(), engine.layers()) == before


def test_pulls_and_collections_at_the_same_time(engine: Engine) -> None:
    """Each pulled image is whole when its row is there, though it is collected all the while."""
    ended = threading.Event()
    rounds = 0
    wrong: list[BaseException] = []

    def collecting() -> None:
        nonlocal rounds
        try:
            while not ended.is_set():
                engine.collect()
                rounds += 1
        except BaseException as error:  # noqa: BLE001 - shown below
            wrong.append(error)

    def pulling(name: str) -> None:
        try:
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline:
                image = engine.pull(name)
                manifest = Manifest.from_json(engine.content.read(image.manifest.digest))
                for layer in manifest.layers:
                    engine.content.info(layer.digest)
                for chain in image.chain_ids:
                    assert engine.snapshots.exists(chain)
                engine.rows.discard(image.resolved.digest)
        except BaseException as error:  # noqa: BLE001 - shown below
            wrong.append(error)

    threads = [threading.Thread(target=pulling, args=(name,)) for name in ("app", "base")]
    collector = threading.Thread(target=collecting)
    for thread in (*threads, collector):
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    collector.join()
    assert wrong == []
    assert rounds > 3


def test_unpacking_again_after_its_snapshots_are_gone(engine: Engine) -> None:
    app = engine.pull("app")
    for chain in reversed(app.chain_ids):
        engine.snapshots.remove(chain)
    manifest = Manifest.from_json(engine.content.read(app.manifest.digest))
    chains = unpack(manifest, app.image_config, engine.content, engine.snapshots)
    assert chains == app.chain_ids
    assert (engine.snapshots.layer(chains[2]) / "app").read_bytes() == b"app"
