"""Image documents: validated against the image-spec's own JSON schemas, and refused by field."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from engine.errors import ContentCorrupt, InvalidInput, NotFound
from engine.oci import media_types
from engine.oci.choice import choose
from engine.oci.digest import Digest
from engine.oci.image import (
    ContainerConfig,
    Descriptor,
    Healthcheck,
    History,
    ImageConfig,
    ImageIndex,
    Manifest,
    Platform,
    RootFS,
)
from engine.oci.platform import host, matches

SCHEMAS = Path(__file__).parent.parent / "data" / "image-spec"
A, B = Digest.of(b"a"), Digest.of(b"b")


def _retrieve(uri: str) -> Resource[object]:
    return DRAFT4.create_resource(json.loads((SCHEMAS / uri.rpartition("/")[2]).read_bytes()))


def check(schema: str, document: bytes) -> None:
    """Raises jsonschema.ValidationError where the image-spec does not allow it."""
    validator = jsonschema.Draft4Validator(
        json.loads((SCHEMAS / schema).read_bytes()),
        registry=Registry(retrieve=_retrieve),  # type: ignore[call-arg]
        format_checker=jsonschema.FormatChecker(),
    )
    validator.validate(json.loads(document))


def layer(digest: Digest = A) -> Descriptor:
    return Descriptor(media_types.OCI_LAYER_GZIP, digest, 10)


CONFIG = ImageConfig(
    platform=Platform("arm64", variant="v8", os_version="1", os_features=("x",)),
    rootfs=RootFS((A, B)),
    config=ContainerConfig(
        user="1000:1000",
        exposed_ports=("53/udp", "80/tcp"),
        env=("PATH=/bin", "E="),
        entrypoint=(),
        cmd=("node", "서버.js"),
        volumes=("/data",),
        working_dir="/app",
        labels={"a": "b"},
        stop_signal="SIGINT",
        healthcheck=Healthcheck(("CMD-SHELL", "true"), interval=30_000_000_000, retries=3),
        on_build=("RUN true",),
        shell=("/bin/bash", "-c"),
        extra={"ArgsEscaped": True},
    ),
    history=(
        History("2026-11-24T00:00:00Z", "COPY . /", "note", "me"),
        History(empty_layer=True, extra={"other": 1}),
    ),
    created="2026-11-24T00:00:00.123456789Z",
    author="me",
    extra={"docker_version": "28"},
)
MANIFEST = Manifest(
    config=Descriptor(media_types.OCI_CONFIG, A, 2),
    layers=(layer(), layer(B)),
    annotations={"k": "v"},
    artifact_type="application/x.y",
    subject=layer(),
)
INDEX = ImageIndex(
    manifests=(
        Descriptor(
            media_types.OCI_MANIFEST,
            A,
            3,
            Platform("amd64"),
            {"k": "v"},
            ("https://example.com/x",),
            "application/x.y",
            {"data": "e30="},
        ),
    ),
    annotations={"k": "v"},
)


def test_documents_satisfy_the_schemas_and_read_back_equal() -> None:
    check("config-schema.json", CONFIG.to_json())
    check("image-manifest-schema.json", MANIFEST.to_json())
    check("image-index-schema.json", INDEX.to_json())
    check("content-descriptor.json", layer().to_json())
    check("config-schema.json", ImageConfig(Platform("amd64"), RootFS()).to_json())
    assert ImageConfig.from_json(CONFIG.to_json()) == CONFIG
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert ImageIndex.from_json(INDEX.to_json()) == INDEX


def test_the_schema_check_itself_can_fail() -> None:
    with pytest.raises(jsonschema.ValidationError):
        check("image-manifest-schema.json", MANIFEST.to_json().replace(b"sha256:", b"sha256-"))


def test_json_is_canonical() -> None:
    assert RootFS((A,)).to_json() == f'{{"diff_ids":["{A}"],"type":"layers"}}'.encode()
    reread = ImageConfig.from_json(json.dumps(json.loads(CONFIG.to_json()), indent=3).encode())
    assert reread.to_json() == CONFIG.to_json()
    assert "서버".encode() in CONFIG.to_json()


def test_set_but_empty_differs_from_unset() -> None:
    assert ContainerConfig(entrypoint=()).to_json() == b'{"Entrypoint":[]}'
    assert ContainerConfig.from_json(b'{"Entrypoint":[]}').entrypoint == ()
    assert ContainerConfig.from_json(b"{}").entrypoint is None
    assert ContainerConfig().to_json() == b"{}"


def test_docker_schema_2_is_read() -> None:
    manifest = Manifest.from_json(
        {
            "schemaVersion": 2,
            "mediaType": media_types.DOCKER_MANIFEST,
            "config": {"mediaType": media_types.DOCKER_CONFIG, "size": 7, "digest": A},
            "layers": [{"mediaType": media_types.DOCKER_LAYER_GZIP, "size": 8, "digest": B}],
        }
    )
    assert manifest.layers[0].media_type in media_types.LAYERS_GZIP
    config = ImageConfig.from_json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Hostname": "", "Env": None, "Volumes": None, "Entrypoint": None},
            "rootfs": {"type": "layers", "diff_ids": [A]},
            "container_config": {"Cmd": ["x"]},
        }
    )
    assert config.config == ContainerConfig(extra={"Hostname": ""})
    assert json.loads(config.to_json())["container_config"] == {"Cmd": ["x"]}
    assert config.rootfs.chain_id == A


DESCRIPTOR = json.loads(layer().to_json())
GOOD = {"schemaVersion": 2, "config": DESCRIPTOR, "layers": [DESCRIPTOR]}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"\xff", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"a": "\\ud800"}', "not JSON"),
        (b"{}", "schemaVersion"),
        ({**GOOD, "schemaVersion": 1}, "schema 1"),
        ({**GOOD, "schemaVersion": True}, "schemaVersion"),
        ({**GOOD, "schemaVersion": 2.0}, "schemaVersion"),
        ({**GOOD, "mediaType": media_types.OCI_INDEX}, "mediaType"),
        ({**GOOD, "config": None}, "config is not an object"),
        ({**GOOD, "layers": {}}, "layers is not a list"),
        ({**GOOD, "layers": [DESCRIPTOR, 1]}, "layers[1] is not an object"),
        ({**GOOD, "layers": [{**DESCRIPTOR, "size": -1}]}, "layers[0]: size"),
        ({**GOOD, "layers": [{**DESCRIPTOR, "size": 2**63}]}, "layers[0]: size"),
        ({**GOOD, "layers": [{**DESCRIPTOR, "digest": "sha256:../x"}]}, "layers[0]: digest"),
        ({**GOOD, "annotations": {"a": 1}}, "annotations.a is not a string"),
        ({**GOOD, "manifests": []}, "manifests is not allowed"),
    ],
    ids=str,
)
def test_a_wrong_manifest_names_its_field(document: bytes | dict[str, object], words: str) -> None:
    with pytest.raises(ContentCorrupt) as caught:
        Manifest.from_json(document)  # type: ignore[arg-type]
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rootfs": None}, "rootfs is not an object"),
        ({"rootfs": {"type": "layers"}}, "diff_ids is not a list"),
        ({"rootfs": {"type": "x", "diff_ids": []}}, "type is not 'layers'"),
        ({"config": {"Env": ["a", 1]}}, "config: Env[1]"),
        ({"config": {"Cmd": "sh"}}, "config: Cmd"),
        ({"config": {"ExposedPorts": {"80/tcp": 1}}}, "ExposedPorts.80/tcp"),
        ({"config": {"Healthcheck": {"Interval": "1s"}}}, "Healthcheck: Interval"),
        ({"history": [{"empty_layer": "no"}]}, "history[0]: empty_layer"),
        ({"os": None}, "os is not a string"),
    ],
    ids=str,
)
def test_a_wrong_config_names_its_field(change: dict[str, object], words: str) -> None:
    document = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}, **change}
    with pytest.raises(ContentCorrupt) as caught:
        ImageConfig.from_json(document)  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert str(caught.value).startswith("image config: ")


def index(*platforms: str | None) -> ImageIndex:
    """One entry for each `os/architecture[/variant]`, as written; None: an entry without one."""
    entries = []
    for number, text in enumerate(platforms):
        os, architecture, variant = (*(text or "").split("/"), "", "")[:3]
        platform = Platform(architecture, os, variant) if text else None
        digest = Digest.of(str(number).encode())
        entries.append(Descriptor(media_types.OCI_MANIFEST, digest, 1, platform))
    return ImageIndex(tuple(entries))


@pytest.mark.parametrize(
    ("offered", "wanted", "chosen"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", 1),
        (["linux/x86_64"], "linux/amd64", 0),
        (["linux/arm64/v8"], "linux/aarch64", 0),
        (["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm", 2),
        (["linux/arm/v7", "linux/arm/v6"], "linux/arm/v6", 1),
        (["linux/386"], "linux/amd64", 0),
        (["linux/386", "linux/amd64"], "linux/amd64", 1),
        (["linux/amd64", "linux/amd64"], "linux/amd64", 0),
        (["linux/amd64", "linux/amd64/v2"], "linux/amd64/v3", 1),
        (["linux/arm/v7"], "linux/arm64", 0),
        (["unknown/unknown", "linux/amd64"], "linux/amd64", 1),
        ([None], "linux/amd64", 0),
    ],
)
def test_the_right_platform_is_chosen(offered: list[str | None], wanted: str, chosen: int) -> None:
    found = index(*offered)
    assert choose(found, Platform.parse(wanted)) is found.manifests[chosen]


def test_no_platform_names_what_is_offered() -> None:
    with pytest.raises(NotFound, match="linux/arm/v7, windows/amd64") as caught:
        choose(
            index("windows/amd64", "linux/arm/v7", "unknown/unknown", None),
            Platform.parse("linux/amd64"),
        )
    assert "linux/amd64" in caught.value.message
    with pytest.raises(NotFound, match="nothing"):
        choose(index(), Platform.parse("linux/amd64"))


def test_platform_texts() -> None:
    assert str(Platform.parse("arm64")) == "linux/arm64"
    assert str(Platform.parse("linux/arm/7")) == "linux/arm/v7"
    assert matches(Platform("aarch64"), Platform.parse("linux/arm64/v8"))
    assert not matches(Platform("amd64"), Platform.parse("linux/arm64"))
    assert matches(host(), host())
    for text in ("", "linux/", "a/b/c/d", "linux amd64"):
        with pytest.raises(InvalidInput):
            Platform.parse(text)
