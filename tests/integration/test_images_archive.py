"""Archives of images: save and load in a round trip, docker's older formats, and hostile ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.content import ContentStore
from engine.errors import ContentCorrupt, ContextError, QuaysideError
from engine.images.archive import opened
from engine.images.leases import Leases
from engine.images.load import LoadedImage, Target, load
from engine.images.save import Piece, Saved, length, save
from engine.oci.digest import Digest, chain_ids
from engine.oci.platform import host
from engine.oci.reference import Reference
from engine.snapshots import OverlaySnapshotter
from tests.tars import folder, make_tar, member, symlink


@dataclass
class Home:
    folder: Path
    content: ContentStore
    snapshots: OverlaySnapshotter
    leases: Leases

    @classmethod
    def at(cls, path: Path) -> Home:
        path.mkdir()
        return cls(
            path,
            ContentStore(path / "content"),
            OverlaySnapshotter(path / "snapshots"),
            Leases(path / "leases"),
        )

    def load(self, data: bytes) -> list[LoadedImage]:
        path = self.folder / "incoming"
        path.write_bytes(data)
        with opened(path) as archive, self.leases.take() as lease:
            return list(load(archive, Target(self.content, self.snapshots, lease), host()))

    def tree(self, image: LoadedImage) -> dict[str, bytes]:
        top = chain_ids(image.diff_ids)[-1]
        found: dict[str, bytes] = {}
        for root in reversed((self.snapshots.layer(top), *self.snapshots.lowers(top))):
            for file in root.rglob("*"):
                if file.is_file():
                    found[str(file.relative_to(root))] = file.read_bytes()
        return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    yield Home.at(tmp_path / "home")


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


LOWER = make_tar(folder("etc"), (member("etc/a"), b"one"), (member("big"), b"x" * 300_000)).read()
UPPER = make_tar((member("etc/b"), b"two")).read()


def config_of(*layers: bytes, **more: Any) -> bytes:
    document = {
        "architecture": host().architecture,
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        **more,
    }
    return json.dumps(document).encode()


def docker_archive(
    *layers: bytes, config: bytes | None = None, tags: list[str] | None = None
) -> bytes:
    """As docker save 20.10 writes it: a folder a layer, a layer that is there twice as a link."""
    body = config or config_of(*layers)
    members: list[Any] = []
    names: list[str] = []
    seen: dict[bytes, str] = {}
    for number, layer in enumerate(layers):
        name = f"{number:064x}/layer.tar"
        if layer in seen:
            members.append(symlink(name, f"../{seen[layer]}"))
        else:
            members.append((member(name), layer))
            seen[layer] = name
        names.append(name)
    manifest = [{"Config": "c.json", "RepoTags": tags, "Layers": names}]
    members += [
        (member("c.json"), body),
        (member("manifest.json"), json.dumps(manifest).encode()),
    ]
    return make_tar(*members).read()


def written(pieces: list[Piece]) -> bytes:
    data = b"".join(p if isinstance(p, bytes) else p.path.read_bytes() for p in pieces)
    assert len(data) == length(pieces)
    return data


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_dockers_old_format_with_plain_layers(home: Home, packed: Any) -> None:
    (image,) = home.load(packed(docker_archive(LOWER, UPPER, UPPER, tags=["me/app:1", "x:2"])))
    assert [name.familiar() for name in image.names] == ["me/app:1", "x:2"]
    assert home.tree(image) == {"etc/a": b"one", "etc/b": b"two", "big": b"x" * 300_000}
    stored = home.content.path(image.layers[0].digest).read_bytes()
    assert gzip.decompress(stored) == LOWER
    assert image.layers[1] == image.layers[2], "the same layer twice is one blob"
    assert not list((home.folder / "snapshots/active").iterdir())


def test_what_is_saved_loads_with_the_same_digests(home: Home, tmp_path: Path) -> None:
    (image,) = home.load(docker_archive(LOWER, UPPER, tags=["me/app:1"]))
    name = Reference.parse("me/app:1")
    data = written(save(home.content, [Saved(image.manifest, image.config, (name,))]))
    other = Home.at(tmp_path / "other")
    (again,) = other.load(data)
    assert again == image
    assert other.tree(again) == home.tree(image)
    (twice,) = other.load(data)
    assert twice == image


def test_the_archive_is_an_oci_layout_too(home: Home, tmp_path: Path) -> None:
    (image,) = home.load(docker_archive(LOWER, UPPER, tags=["me/app:1"]))
    name = Reference.parse("me/app:1")
    data = written(save(home.content, [Saved(image.manifest, image.config, (name,))]))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(tmp_path / "layout", filter="data")
    layout = tmp_path / "layout"
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    for blob in (layout / "blobs/sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    index = json.loads((layout / "index.json").read_text())
    assert index["manifests"][0]["digest"] == image.manifest
    # Without docker's own files it is loaded by the index, name and all.
    (layout / "manifest.json").unlink()
    (layout / "repositories").unlink()
    out = tmp_path / "layout.tar"
    subprocess.run(["tar", "-C", layout, "-cf", out, "."], check=True)
    assert Home.at(tmp_path / "other").load(out.read_bytes()) == [image]


def test_images_share_blobs_in_one_archive(home: Home) -> None:
    (one,) = home.load(docker_archive(LOWER, tags=["a:1"]))
    (two,) = home.load(docker_archive(LOWER, UPPER, tags=["b:1"]))
    data = written(
        save(
            home.content,
            [Saved(image.manifest, image.config, image.names) for image in (one, two)],
        )
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
    assert len(names) == len(set(names))
    assert [image.names for image in home.load(data)] == [one.names, two.names]


def nothing_stays(home: Home) -> None:
    assert not list((home.folder / "snapshots/active").iterdir())
    assert not list((home.folder / "content/ingests").iterdir())


@pytest.mark.parametrize(
    ("archive", "kind"),
    [
        (b"", ContextError),
        (b"no tar at all" * 100, ContextError),
        (b"\x1f\x8bbroken", ContextError),
        (make_tar((member("x"), b"y")).read(), ContextError),
        (make_tar((member("manifest.json"), b"{}")).read(), ContextError),
        (make_tar((member("manifest.json"), b"[" * 100_000)).read(), ContextError),
        (make_tar((member("manifest.json"), b'[{"Config": 5}]')).read(), ContextError),
        (
            make_tar(
                symlink("c", "/etc/passwd"),
                (member("manifest.json"), b'[{"Config": "c", "Layers": []}]'),
            ).read(),
            ContextError,
        ),
        (
            make_tar(
                symlink("c", "d"),
                symlink("d", "c"),
                (member("manifest.json"), b'[{"Config": "c", "Layers": []}]'),
            ).read(),
            ContextError,
        ),
        (
            make_tar(
                (member("manifest.json"), b'[{"Config": "../../etc/passwd", "Layers": []}]')
            ).read(),
            ContextError,
        ),
        (docker_archive(LOWER, config=config_of(UPPER)), ContentCorrupt),
        (docker_archive(LOWER, config=config_of(LOWER, UPPER)), ContextError),
        (docker_archive(LOWER, tags=["Not/A:name"]), ContextError),
        (docker_archive(LOWER, tags=["a@sha256:" + "1" * 64]), ContextError),
        (docker_archive(b"\x1f\x8b" + b"0" * 100, config=config_of(LOWER)), ContextError),
        (docker_archive(LOWER)[:200_000], ContextError),
    ],
)
def test_what_no_honest_docker_save_writes(
    home: Home, archive: bytes, kind: type[QuaysideError]
) -> None:
    with pytest.raises(kind):
        home.load(archive)
    nothing_stays(home)


def test_a_layer_leads_nowhere_else(home: Home, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    evil = make_tar(symlink("out", str(outside)), (member("out/x"), b"escaped")).read()
    (image,) = home.load(docker_archive(evil))
    assert not outside.exists()
    assert list(home.tree(image).values()) == [b"escaped"], "its link is followed inside only"
    nothing_stays(home)


def test_a_blob_of_a_layout_must_be_what_its_name_says(home: Home, tmp_path: Path) -> None:
    (image,) = home.load(docker_archive(LOWER, tags=["a:1"]))
    data = bytearray(written(save(home.content, [Saved(image.manifest, image.config)])))
    layer = home.content.path(image.layers[0].digest).read_bytes()
    at = bytes(data).index(layer)
    data[at + len(layer) // 2] ^= 1
    other = Home.at(tmp_path / "other")
    with pytest.raises(ContentCorrupt):
        other.load(bytes(data))
    nothing_stays(other)
    assert not other.content.has(Digest(image.layers[0].digest))
