"""Pull, whole: registry to content store to snapshots, and everything that may go wrong on it."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.content import ContentStore
from engine.errors import (
    Cancelled,
    ContentCorrupt,
    NoSpace,
    NotFound,
    QuaysideError,
    RegistryError,
    RegistryNotFound,
    RegistryRateLimited,
    RegistryUnauthorized,
    RegistryUnavailable,
    Unsupported,
)
from engine.images.leases import Leases
from engine.images.progress import Progress
from engine.images.pull import PulledImage, pull
from engine.oci.digest import Digest
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.registry import RegistryClient, RetryPolicy
from engine.snapshots import OverlaySnapshotter
from tests.registry import (
    ARCHITECTURE,
    OTHER_ARCHITECTURE,
    Media,
    PushedImage,
    RegistryServer,
    push_image,
    push_manifest,
    running_registry,
    tar_of,
)
from tests.registry_faults import FaultyRegistry, faulty_registry

QUICK = RetryPolicy(attempts=3, first=0.01, longest=0.05, patience=1.0)
NODE = Reference.parse("node")


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def tar_of_links(count: int) -> bytes:
    """One file by many names: takes its time to unpack, and hardly any disk."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("file"))
        for number in range(count):
            link = tarfile.TarInfo(f"link{number}")
            link.type, link.linkname = tarfile.LNKTYPE, "file"
            archive.addfile(link)
    return out.getvalue()


LAYERS = [
    tar_of({f"layer{n}/": b"", f"layer{n}/data": noise(n, 400_000), "top": b"%d" % n})
    for n in range(4)
]


@dataclass
class Home:
    """A content store and snapshots, and pulls into them."""

    folder: Path
    received: list[Progress]

    def __post_init__(self) -> None:
        self.content = ContentStore(self.folder / "content")
        self.snapshots = OverlaySnapshotter(self.folder / "snapshots")
        self.leases = Leases(self.folder / "leases")
        self.cancel = threading.Event()

    def pull(
        self, *mirrors: str, reference: Reference = NODE, platform: Platform | None = None
    ) -> PulledImage:
        client = RegistryClient("docker.io", mirrors=mirrors, policy=QUICK)
        with client, self.leases.take() as lease:
            return pull(
                reference,
                client=client,
                content=self.content,
                snapshots=self.snapshots,
                platform=platform,
                progress=self.received.append,
                cancelled=self.cancel.is_set,
                lease=lease,
            )

    def assert_nothing_half_made(self, *, parts: bool = False) -> None:
        """`parts`: downloads that can be resumed may lie about."""
        assert [info for info in self.snapshots.walk() if info.kind == "active"] == []
        assert self.snapshots.sweep() == 0
        for info in self.content.walk():
            data = self.content.path(info.digest).read_bytes()
            assert Digest.of(data) == info.digest
        if not parts:
            assert list((self.folder / "content" / "ingests").iterdir()) == []

    def assert_whole(self, image: PulledImage, pushed: PushedImage) -> None:
        assert image.config.digest == pushed.config
        assert [layer.digest for layer in image.layers] == list(pushed.layers)
        top = self.snapshots.layer(image.chain_ids[-1])
        below = self.snapshots.lowers(image.chain_ids[-1])
        assert len(below) == len(image.layers) - 1
        found = {path.relative_to(layer) for layer in (top, *below) for path in layer.rglob("data")}
        assert found == {Path(f"layer{n}/data") for n in range(len(image.layers))}
        assert (top / "top").read_bytes() == b"%d" % (len(image.layers) - 1)
        self.assert_nothing_half_made()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", [])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def node(server: RegistryServer) -> PushedImage:
    return push_image(server, "library/node", layers=LAYERS, config={"Cmd": ["node"]})


@pytest.fixture
def faulty(server: RegistryServer, node: PushedImage) -> Iterator[FaultyRegistry]:
    with faulty_registry(server.address) as proxy:
        yield proxy


@pytest.mark.parametrize("index", [False, True], ids=["manifest", "index"])
@pytest.mark.parametrize("media", ["docker", "oci"])
def test_an_image_arrives(server: RegistryServer, home: Home, media: Media, index: bool) -> None:
    name = f"{media}-{index}".lower()
    pushed = push_image(
        server,
        f"library/{name}",
        layers=LAYERS,
        config={"Cmd": ["node"], "Env": ["A=b"]},
        media=media,
        index=index,
    )
    image = home.pull(server.url, reference=Reference.parse(name))
    home.assert_whole(image, pushed)
    assert image.resolved.digest == pushed.top
    assert image.manifest.digest == pushed.manifest
    assert image.image_config.config.cmd == ("node",)
    assert image.image_config.platform.architecture == ARCHITECTURE
    wanted = {image.resolved.digest, image.manifest.digest, image.config.digest}
    wanted |= {layer.digest for layer in image.layers}
    assert {info.digest for info in home.content.walk()} == wanted  # and no other platform's


def test_a_second_pull_asks_for_no_blob(faulty: FaultyRegistry, home: Home) -> None:
    first = home.pull(faulty.url)
    faulty.clear()
    assert home.pull(faulty.url) == first
    assert [seen.path for seen in faulty.seen] == ["/v2/library/node/manifests/latest"]


def test_progress_tells_of_every_layer_in_the_callers_thread(
    faulty: FaultyRegistry, home: Home, node: PushedImage
) -> None:
    faulty.rule("/blobs/", rate=1_500_000)
    threads = set()
    whole = home.received.append

    class Received(list[Progress]):
        def append(self, progress: Progress) -> None:
            threads.add(threading.get_ident())
            whole(progress)

    kept, home.received = home.received, Received()
    home.pull(faulty.url)
    assert threads == {threading.get_ident()}
    assert kept[0] == Progress("resolving")
    for digest, size in zip(node.layers, node.sizes, strict=True):
        mine = [progress for progress in kept if progress.digest == digest]
        assert {progress.total for progress in mine} == {size}
        assert mine[-1] == Progress("done", digest, size, size)
        order = ["downloading", "extracting", "done"]
        steps = [(order.index(progress.kind), progress.current) for progress in mine]
        assert steps == sorted(steps)
        assert len({p.current for p in mine if p.kind == "downloading"}) > 1


def test_layers_come_in_parallel(faulty: FaultyRegistry, home: Home, node: PushedImage) -> None:
    faulty.rule("/manifests/", times=0)
    faulty.rule(node.config, times=0)
    faulty.rule("/blobs/", rate=1_000_000)
    home.pull(faulty.url)
    assert faulty.most_at_once == len(node.layers)


def test_what_broke_is_resumed_within_a_pull(
    faulty: FaultyRegistry, home: Home, node: PushedImage
) -> None:
    for layer in node.layers:
        faulty.rule(layer, cut=150_000, times=2)
    home.assert_whole(home.pull(faulty.url), node)
    for layer in node.layers:
        asked = [seen.headers.get("Range") for seen in faulty.requests(layer)]
        assert asked == [None, "bytes=150000-", "bytes=300000-"]


PULL_PROCESS = """
import sys
from pathlib import Path
from engine.content import ContentStore
from engine.images.pull import pull
from engine.oci.reference import Reference
from engine.registry import RegistryClient
from engine.snapshots import OverlaySnapshotter
from engine.images.leases import Leases
folder = Path(sys.argv[1])
with Leases(folder / "leases").take() as lease:
    pull(Reference.parse("node"), client=RegistryClient("docker.io", mirrors=[sys.argv[2]]),
        content=ContentStore(folder / "content"),
        snapshots=OverlaySnapshotter(folder / "snapshots"), lease=lease)
"""


def started(parts: Path) -> list[Path]:
    return [part for part in parts.iterdir() if part.stat().st_size > 10_000]


def test_a_killed_pull_is_resumed_by_the_next(
    faulty: FaultyRegistry, home: Home, node: PushedImage
) -> None:
    faulty.rule("/manifests/", times=0)
    for layer in node.layers:
        faulty.rule(layer, rate=200_000, times=1)
    command = [sys.executable, "-c", PULL_PROCESS, str(home.folder), faulty.url]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
        parts = home.folder / "content" / "ingests"
        deadline = time.monotonic() + 10
        while not parts.is_dir() or len(started(parts)) < len(node.layers):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    faulty.clear()
    home.assert_whole(home.pull(faulty.url), node)
    starts = [seen.headers.get("Range", "") for seen in faulty.requests("/blobs/")]
    assert sum(bool(start) for start in starts) == len(node.layers)


def test_two_pulls_of_one_image_fetch_each_layer_once(
    faulty: FaultyRegistry, home: Home, node: PushedImage
) -> None:
    faulty.rule("/blobs/", rate=1_000_000)
    images: list[PulledImage] = []
    threads = [
        threading.Thread(target=lambda: images.append(home.pull(faulty.url))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert images[0] == images[1]
    home.assert_whole(images[0], node)
    for layer in node.layers:
        assert len(faulty.requests(layer)) == 1


# Cancelling


def test_cancelling_a_download_is_quick_and_keeps_what_came(
    faulty: FaultyRegistry, home: Home, node: PushedImage
) -> None:
    faulty.rule("/manifests/", times=0)
    faulty.rule(node.config, times=0)
    faulty.rule("/blobs/", rate=50_000)  # 8 s
    asked: list[float] = []
    receive = home.received.append

    class Received(list[Progress]):
        def append(self, progress: Progress) -> None:
            receive(progress)
            if progress.current and not asked:
                asked.append(time.monotonic())
                home.cancel.set()

    home.received = Received()
    with pytest.raises(Cancelled):
        home.pull(faulty.url)
    assert time.monotonic() - asked[0] < 2
    home.assert_nothing_half_made(parts=True)
    faulty.clear()
    home.cancel.clear()
    home.assert_whole(home.pull(faulty.url), node)
    ranges = [seen.headers.get("Range") for seen in faulty.requests("/blobs/")]
    assert any(ranges)


def test_cancelling_while_a_layer_is_unpacked(server: RegistryServer, home: Home) -> None:
    push_image(server, "library/many", layers=[tar_of_links(15_000)])
    receive = home.received.append

    class Received(list[Progress]):
        def append(self, progress: Progress) -> None:
            receive(progress)
            if progress.kind == "extracting":
                home.cancel.set()

    home.received = Received()
    with pytest.raises(Cancelled):
        home.pull(server.url, reference=Reference.parse("many"))
    home.assert_nothing_half_made()
    assert list(home.snapshots.walk()) == []


def test_a_receiver_that_fails_ends_the_pull(faulty: FaultyRegistry, home: Home) -> None:
    faulty.rule("/blobs/", rate=20_000)

    class Received(list[Progress]):
        def append(self, progress: Progress) -> None:
            if progress.kind == "downloading":
                raise LookupError("the row is gone")

    home.received = Received()
    started = time.monotonic()
    with pytest.raises(LookupError):
        home.pull(faulty.url)
    assert time.monotonic() - started < 5
    home.assert_nothing_half_made(parts=True)


# Errors


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, RegistryUnauthorized),
        (404, RegistryNotFound),
        (429, RegistryRateLimited),
        (500, RegistryUnavailable),
    ],
)
@pytest.mark.parametrize("where", ["/manifests/", "/blobs/"])
def test_what_a_registry_answers_is_what_the_user_is_told(
    faulty: FaultyRegistry, home: Home, where: str, status: int, error: type[RegistryError]
) -> None:
    faulty.rule(where, status=status)
    with pytest.raises(error) as caught:
        home.pull(faulty.url)
    assert caught.value.hint
    assert faulty.address in caught.value.message
    home.assert_nothing_half_made(parts=True)


@pytest.mark.parametrize("fault", ["corrupt", "truncate"])
def test_a_damaged_blob(
    server: RegistryServer, faulty: FaultyRegistry, home: Home, node: PushedImage, fault: str
) -> None:
    damage = {"corrupt": True} if fault == "corrupt" else {"truncate": 100}
    faulty.rule(node.layers[1], **damage)
    with pytest.raises(ContentCorrupt) as caught:
        home.pull(faulty.url)
    assert node.layers[1] in caught.value.message
    assert "try again" in caught.value.hint
    assert len(faulty.requests(node.layers[1])) >= 2  # it was given a second chance
    assert not home.content.has(Digest.parse(node.layers[1]))
    home.assert_nothing_half_made(parts=True)
    home.assert_whole(home.pull(faulty.url, server.url), node)  # another mirror has it sound


def test_a_layer_that_is_not_what_the_config_says(server: RegistryServer, home: Home) -> None:
    wrong = {"rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"something else"))]}}
    push_image(server, "library/wrong", layers=LAYERS[:1], image=wrong)
    with pytest.raises(ContentCorrupt, match="as its config says"):
        home.pull(server.url, reference=Reference.parse("wrong"))
    home.assert_nothing_half_made()
    assert list(home.snapshots.walk()) == []


def test_a_config_with_another_number_of_layers(server: RegistryServer, home: Home) -> None:
    push_image(
        server,
        "library/few",
        layers=LAYERS[:1],
        image={"rootfs": {"type": "layers", "diff_ids": []}},
    )
    with pytest.raises(ContentCorrupt, match="1 layers, its config 0"):
        home.pull(server.url, reference=Reference.parse("few"))


def test_no_image_for_this_platform(server: RegistryServer, home: Home) -> None:
    push_image(server, "library/two", layers=LAYERS[:1], index=True)
    with pytest.raises(NotFound, match=f"linux/{ARCHITECTURE}, linux/{OTHER_ARCHITECTURE}"):
        home.pull(
            server.url, reference=Reference.parse("two"), platform=Platform.parse("linux/riscv64")
        )
    other = home.pull(
        server.url,
        reference=Reference.parse("two"),
        platform=Platform.parse(f"linux/{OTHER_ARCHITECTURE}"),
    )
    assert (home.snapshots.layer(other.chain_ids[0]) / "WRONG").exists()
    push_image(server, "library/one", layers=LAYERS[:1], architecture=OTHER_ARCHITECTURE)
    with pytest.raises(NotFound, match=OTHER_ARCHITECTURE):
        home.pull(server.url, reference=Reference.parse("one"))


def test_what_is_no_container_image(server: RegistryServer, home: Home) -> None:
    push_manifest(
        server,
        "library/chart",
        config=("application/vnd.cncf.helm.config.v1+json", b"{}"),
        layers=[("application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"chart")],
    )
    with pytest.raises(Unsupported, match="helm"):
        home.pull(server.url, reference=Reference.parse("chart"))


@pytest.mark.parametrize("where", ["download", "unpack"])
def test_a_full_disk(server: RegistryServer, home: Home, tmp_path: Path, where: str) -> None:
    """4 MiB: too small for the blobs, or for what they unpack to."""
    data = [noise(n, 3_000_000) if where == "download" else b"x" * 8_000_000 for n in range(2)]
    pushed = push_image(
        server, f"library/{where}", layers=[tar_of({f"big{n}": d}) for n, d in enumerate(data)]
    )
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], check=True)
    try:
        full = Home(small, [])
        with pytest.raises(NoSpace) as caught:
            full.pull(server.url, reference=Reference.parse(where))
        assert "disk space" in caught.value.hint
        full.assert_nothing_half_made()
        assert list(full.snapshots.walk()) == []
        subprocess.run(["mount", "-o", "remount,size=40m", str(small)], check=True)
        image = full.pull(server.url, reference=Reference.parse(where))
        assert [layer.digest for layer in image.layers] == list(pushed.layers)
        full.assert_nothing_half_made()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_errors_are_rows_fit_for_json(faulty: FaultyRegistry, home: Home) -> None:
    faulty.rule("/v2/", status=404)
    with pytest.raises(QuaysideError) as caught:
        home.pull(faulty.url)
    assert caught.value.as_dict()["id"] == "registry-not-found"
