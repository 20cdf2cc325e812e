"""Push to real registries: what is there is left out, sign-ins, mounts, breaks, cancelling."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3

from engine.content import ContentStore
from engine.errors import Cancelled, NotFound, RegistryUnauthorized, RegistryUnavailable
from engine.images.progress import Progress
from engine.images.push import Layer, Pushed, push
from engine.oci import media_types
from engine.oci.digest import Digest
from engine.oci.image import Descriptor, ImageConfig, Manifest, RootFS
from engine.oci.platform import host
from engine.oci.reference import Reference
from engine.registry import Credentials, RegistryClient, RetryPolicy
from tests.registry import PASSWORD, USER, RegistryServer, running_registry
from tests.registry_token import serve_http

ANN = Credentials(USER, PASSWORD)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with running_registry(tmp_path_factory.mktemp("plain")) as server:
        yield server


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content")


def image(content: ContentStore, *blobs: bytes) -> tuple[Digest, tuple[Layer, ...]]:
    """Blobs of any bytes: nobody unpacks them here."""
    layers = tuple(
        Descriptor(media_types.OCI_LAYER_GZIP, content.put(blob), len(blob)) for blob in blobs
    )
    config = ImageConfig(host(), RootFS(tuple(layer.digest for layer in layers))).to_json()
    described = Descriptor(media_types.OCI_CONFIG, content.put(config), len(config))
    manifest = content.put(Manifest(described, layers).to_json())
    return manifest, tuple(Layer(layer, layer.digest) for layer in layers)


def client(server_address: str, credentials: Credentials | None = None) -> RegistryClient:
    return RegistryClient(
        server_address,
        insecure=[server_address],
        credentials=credentials,
        policy=RetryPolicy(attempts=3, first=0.01),
    )


def pushed(
    content: ContentStore,
    address: str,
    name: str,
    made: tuple[Digest, tuple[Layer, ...]],
    credentials: Credentials | None = None,
) -> tuple[Pushed, list[str]]:
    """The result, and how each layer ended."""
    ends: dict[str, str] = {}

    def note(progress: Progress) -> None:
        ends[progress.digest] = progress.kind

    with client(address, credentials) as asked:
        done = push(
            *made,
            Reference.parse(f"{address}/{name}"),
            client=asked,
            content=content,
            progress=note,
        )
    return done, [ends[layer.shown] for layer in made[1]]


def fetched(server: RegistryServer, name: str, tag: str) -> bytes:
    accept = {"Accept": media_types.OCI_MANIFEST}
    with urllib3.PoolManager() as http:
        return http.request("GET", f"{server.url}/v2/{name}/manifests/{tag}", headers=accept).data


def test_the_manifest_arrives_as_it_is_and_blobs_go_once(
    registry: RegistryServer, content: ContentStore
) -> None:
    made = image(content, b"one" * 100_000, b"two")
    done, ends = pushed(content, registry.address, "me/app:1", made)
    assert (done.digest, ends) == (made[0], ["pushed", "pushed"])
    assert fetched(registry, "me/app", "1") == content.read(made[0])
    layer = made[1][0].descriptor
    assert registry.blob_file(layer.digest).read_bytes() == content.path(layer.digest).read_bytes()
    assert pushed(content, registry.address, "me/app:2", made)[1] == ["exists", "exists"]


def test_a_layer_is_taken_from_another_repository(
    registry: RegistryServer, content: ContentStore
) -> None:
    manifest, (layer,) = image(content, b"mounted" * 1000)
    pushed(content, registry.address, "from/here:1", (manifest, (layer,)))
    with_sources = (Layer(layer.descriptor, layer.shown, ("no/such", "from/here")),)
    ends = pushed(content, registry.address, "to/there:1", (manifest, with_sources))[1]
    assert ends == ["mounted"]


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_sign_in_is_asked_for(tmp_path: Path, content: ContentStore, auth: str) -> None:
    made = image(content, b"private" * 1000)
    with running_registry(tmp_path, "basic" if auth == "basic" else "token") as server:
        with pytest.raises(RegistryUnauthorized):
            pushed(content, server.address, "me/app:1", made)
        wrong = Credentials(USER, "wrong")
        with pytest.raises(RegistryUnauthorized):
            pushed(content, server.address, "me/app:1", made, wrong)
        with client(server.address, wrong) as asked, pytest.raises(RegistryUnauthorized):
            asked.sign_in()
        with client(server.address, ANN) as asked:
            asked.sign_in()
        assert pushed(content, server.address, "me/app:1", made, ANN)[1] == ["pushed"]
        # With a source that is mounted from: two scopes in one token.
        manifest, (layer,) = made
        mounting = (manifest, (Layer(layer.descriptor, layer.shown, ("me/app",)),))
        assert pushed(content, server.address, "me/other:1", mounting, ANN)[1] == ["mounted"]


def test_nobody_there(content: ContentStore) -> None:
    with pytest.raises(RegistryUnavailable):
        pushed(content, "127.0.0.1:9", "x", image(content, b"x"))


def test_a_blob_that_is_missing_here(registry: RegistryServer, content: ContentStore) -> None:
    made = image(content, b"missing")
    content.delete(made[1][0].descriptor.digest)
    with pytest.raises(NotFound):
        pushed(content, registry.address, "me/missing", made)


class Odd(BaseHTTPRequestHandler):
    """A registry that breaks the first whole upload off, takes at most `limit` bytes a request
    and, if so told, no OCI manifest. Class attributes are its state."""

    protocol_version = "HTTP/1.1"
    breaks = 0
    limit = 1 << 40
    docker_only = False
    blobs: dict[str, bytes]
    manifests: list[tuple[str, bytes]]

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_GET(self) -> None:
        self._answer(200)

    def do_HEAD(self) -> None:
        self._answer(200 if self.path.rpartition("/")[2] in self.blobs else 404)

    def do_POST(self) -> None:
        self.blobs["upload"] = b""
        self._answer(202, Location="/upload?state=1")

    def do_PATCH(self) -> None:
        self.blobs["upload"] += self.rfile.read(int(self.headers["Content-Length"]))
        last = len(self.blobs["upload"]) - 1
        self._answer(202, Location="/upload?state=2", Range=f"0-{last}")

    def do_PUT(self) -> None:
        size = int(self.headers["Content-Length"])
        if size > self.limit:
            self.rfile.read(size)
            self._answer(413)
            return
        if size > 1000 and type(self).breaks:
            type(self).breaks -= 1
            self.rfile.read(500)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = self.rfile.read(size)
        kind = self.headers["Content-Type"]
        if "/manifests/" in self.path:
            if self.docker_only and "oci" in kind:
                self._answer(415)
                return
            self.manifests.append((kind, body))
        else:
            whole = self.blobs["upload"] + body
            digest = parse_qs(urlsplit(self.path).query)["digest"][0]
            assert Digest.of(whole) == digest
            self.blobs[digest] = whole
        self._answer(201)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[tuple[type[Odd], str]]:
    kind = type("Kind", (Odd,), {"blobs": {}, "manifests": []})
    with serve_http(kind) as address:
        yield kind, address


def test_an_upload_that_breaks_begins_anew(
    odd: tuple[type[Odd], str], content: ContentStore
) -> None:
    registry, address = odd
    registry.breaks = 1
    made = image(content, b"again" * 100_000)
    assert pushed(content, address, "x:1", made)[1] == ["pushed"]
    registry.breaks = 100
    with pytest.raises(RegistryUnavailable):
        pushed(content, address, "x:1", image(content, b"never" * 100_000))


def test_in_pieces_where_one_request_is_too_large(
    odd: tuple[type[Odd], str], content: ContentStore
) -> None:
    registry, address = odd
    registry.limit = 1 << 20
    blob = bytes(40 << 20)
    made = image(content, blob)
    assert pushed(content, address, "x:1", made)[1] == ["pushed"]
    assert registry.blobs[made[1][0].descriptor.digest] == blob


def test_schema_2_for_a_registry_that_knows_no_oci(
    odd: tuple[type[Odd], str], content: ContentStore
) -> None:
    registry, address = odd
    registry.docker_only = True
    made = image(content, b"old")
    done, _ = pushed(content, address, "x:1", made)
    ((kind, body),) = registry.manifests
    assert kind == media_types.DOCKER_MANIFEST
    assert done.digest == Digest.of(body) != made[0]
    assert Manifest.from_json(body).layers[0].digest == made[1][0].descriptor.digest


def test_cancelling_ends_it_at_once(registry: RegistryServer, content: ContentStore) -> None:
    made = image(content, b"never" * 1_000_000)
    asked = threading.Event()

    def note(progress: Progress) -> None:
        if progress.kind == "pushing":
            asked.set()
            threading.Event().wait(0.3)

    with client(registry.address) as used, pytest.raises(Cancelled):
        push(
            *made,
            Reference.parse(f"{registry.address}/me/never"),
            client=used,
            content=content,
            progress=note,
            cancelled=asked.is_set,
        )
    assert b"MANIFEST_UNKNOWN" in fetched(registry, "me/never", "latest") or re.search(
        b"NAME_UNKNOWN", fetched(registry, "me/never", "latest")
    )
