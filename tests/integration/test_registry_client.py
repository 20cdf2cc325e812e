"""RegistryClient against Debian's docker-registry: sign-in, mirrors, redirects, guards."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from engine.errors import (
    Cancelled,
    ContentCorrupt,
    PolicyDenied,
    RegistryError,
    RegistryNotFound,
    RegistryRateLimited,
    RegistryUnauthorized,
    RegistryUnavailable,
    Unsupported,
)
from engine.oci.digest import Digest
from engine.oci.image import Descriptor, Manifest
from engine.oci.reference import Reference
from engine.registry import Credentials, RegistryClient, RetryPolicy, Timeouts
from tests.registry import (
    PASSWORD,
    USER,
    PushedImage,
    RegistryServer,
    push_image,
    running_registry,
    tar_of,
)
from tests.registry_faults import FaultyRegistry, faulty_registry
from tests.registry_token import IDENTITY_TOKEN, serve_http

QUICK = RetryPolicy(attempts=3, first=0.01, longest=0.05, patience=2.0)
NODE = Reference.parse("node")
LAYER = tar_of({"usr/": b"", "usr/hello": b"hello\n" * 50_000})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def node(server: RegistryServer) -> PushedImage:
    return push_image(server, "library/node", layers=[LAYER])


@pytest.fixture
def faulty(server: RegistryServer, node: PushedImage) -> Iterator[FaultyRegistry]:
    with faulty_registry(server.address) as proxy:
        yield proxy


def mirrored(*urls: str, credentials: Credentials | None = None) -> RegistryClient:
    return RegistryClient("docker.io", mirrors=urls, credentials=credentials, policy=QUICK)


def insecure(address: str, credentials: Credentials | None = None) -> RegistryClient:
    return RegistryClient(address, insecure={address}, credentials=credentials, policy=QUICK)


def layer_of(client: RegistryClient, reference: Reference = NODE) -> Descriptor:
    return Manifest.from_json(client.resolve(reference).body).layers[0]


def whole(client: RegistryClient, reference: Reference = NODE) -> bytes:
    with client.open_blob(reference, layer_of(client, reference)) as reader:
        return b"".join(iter(reader.read, b""))


def test_a_short_name_comes_from_the_mirror(server: RegistryServer, node: PushedImage) -> None:
    with mirrored(server.url) as client:
        resolved = client.resolve(NODE)
        assert resolved.descriptor.digest == node.manifest
        assert Digest.of(whole(client)) == node.layers[0]
        by_digest = client.resolve(Reference.parse(f"node@{node.manifest}"))
        assert by_digest == resolved


def test_a_registry_without_tls_that_the_administrator_named(server: RegistryServer) -> None:
    push_image(server, "own/thing", "v1", layers=[LAYER], media="oci")
    with insecure(server.address) as client:
        reference = Reference.parse(f"{server.address}/own/thing:v1")
        assert client.resolve(reference).descriptor.media_type.startswith("application/vnd.oci")


def test_what_is_missing_everywhere_says_so(server: RegistryServer) -> None:
    with mirrored(server.url) as client, pytest.raises(RegistryNotFound) as caught:
        client.resolve(Reference.parse("no-such-image:1"))
    assert "library/no-such-image:1" in caught.value.message
    assert server.address in caught.value.message
    assert "registry-1.docker.io" in caught.value.message  # it was asked too
    assert "spelling" in caught.value.hint


def test_the_second_mirror_serves_what_the_first_cannot(
    server: RegistryServer, node: PushedImage, faulty: FaultyRegistry
) -> None:
    faulty.rule("/v2/", status=500)
    with mirrored("http://127.0.0.1:1", faulty.url, server.url) as client:
        assert client.resolve(NODE).descriptor.digest == node.manifest
        asked = len(faulty.seen)
        whole(client)
        assert len(faulty.seen) == asked  # the one that could is asked first from then on


def test_tags_come_page_after_page(server: RegistryServer, faulty: FaultyRegistry) -> None:
    for tag in ("b", "a", "c"):
        push_image(server, "library/tagged", tag, layers=[LAYER])
    reference = Reference.parse("tagged")
    with mirrored(server.url) as client:
        every = client.tags(reference)
    assert sorted(every) == ["a", "b", "c"]
    path = "/v2/library/tagged/tags/list"
    # Wherever a registry says that the next page lies, its query is asked of the registry itself.
    link = {"Link": f'<http://127.0.0.1:1{path}?last=a>; rel="next"'}
    faulty.rule(path, times=1, status=200, headers=link, body=b'{"tags": ["a"]}')
    with mirrored(faulty.url) as client:
        assert client.tags(reference) == ["a", *every]  # this registry knows no pages itself
    assert [one.path for one in faulty.requests(path)] == [path, f"{path}?last=a"]
    faulty.clear()
    faulty.rule(path, times=1, status=200, body=b'{"tags": null}')
    with mirrored(faulty.url) as client:
        assert client.tags(reference) == []
    for odd in (b"[]", b"{", b'{"tags": "a"}', b'{"tags": [1]}'):
        faulty.rule(path, times=1, status=200, body=odd)
        with mirrored(faulty.url) as client, pytest.raises(ContentCorrupt, match="cannot be read"):
            client.tags(reference)
    with mirrored(server.url) as client, pytest.raises(RegistryNotFound):
        client.tags(Reference.parse("nowhere"))


# Signing in


def test_basic(tmp_path: Path) -> None:
    with running_registry(tmp_path, auth="basic") as server:
        pushed = push_image(server, "team/app", layers=[LAYER])
        reference = Reference.parse(f"{server.address}/team/app")
        with insecure(server.address, Credentials(USER, PASSWORD)) as client:
            assert client.resolve(reference).descriptor.digest == pushed.manifest
            assert Digest.of(whole(client, reference)) == pushed.layers[0]
        with insecure(server.address) as client, pytest.raises(RegistryUnauthorized) as caught:
            client.resolve(reference)
        assert "sign in" in caught.value.hint
        wrong = insecure(server.address, Credentials(USER, "wrong"))
        with wrong as client, pytest.raises(RegistryUnauthorized) as caught:
            client.resolve(reference)
        assert "does not accept" in caught.value.message
        assert "wrong" not in str(caught.value.as_dict())
        address = f"http://{USER}:{PASSWORD}@{server.address}"
        library = push_image(server, "library/app", layers=[LAYER])
        with mirrored(address) as client:
            assert client.resolve(Reference.parse("app")).descriptor.digest == library.manifest


def test_bearer(tmp_path: Path) -> None:
    with running_registry(tmp_path, auth="token", anonymous=()) as server:
        assert server.tokens is not None
        pushed = push_image(server, "team/app", layers=[LAYER])
        reference = Reference.parse(f"{server.address}/team/app")
        with insecure(server.address, Credentials(USER, PASSWORD)) as client:
            assert client.resolve(reference).descriptor.digest == pushed.manifest
            assert Digest.of(whole(client, reference)) == pushed.layers[0]
        assert server.tokens.requests == [(USER, ["repository:team/app:pull"])]  # one for all
        identity = Credentials("<token>", identity_token=IDENTITY_TOKEN)
        with insecure(server.address, identity) as client:
            assert client.resolve(reference).descriptor.digest == pushed.manifest
        for credentials, words in ((None, "nobody who is not signed in"), (USER, "not accept")):
            given = Credentials(credentials, "wrong") if credentials else None
            with insecure(server.address, given) as client:
                with pytest.raises(RegistryUnauthorized) as caught:
                    client.resolve(reference)
                assert words in caught.value.message


def test_anonymous_bearer_and_a_token_that_runs_out(tmp_path: Path) -> None:
    with running_registry(tmp_path, auth="token", token_lifetime=1) as server:
        assert server.tokens is not None
        pushed = push_image(server, "library/node", layers=[LAYER])
        with mirrored(server.url) as client:
            assert client.resolve(NODE).descriptor.digest == pushed.manifest
            time.sleep(0.9)
            assert Digest.of(whole(client)) == pushed.layers[0]
        assert len(server.tokens.requests) >= 2
        assert {user for user, _ in server.tokens.requests} == {""}


def test_many_threads_sign_in_once(tmp_path: Path) -> None:
    with running_registry(tmp_path, auth="token") as server:
        assert server.tokens is not None
        push_image(server, "library/node", layers=[LAYER])
        with mirrored(server.url) as client:
            threads = [threading.Thread(target=client.resolve, args=(NODE,)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(server.tokens.requests) == 1


def test_the_origins_password_is_never_sent_to_a_mirror(
    server: RegistryServer, faulty: FaultyRegistry
) -> None:
    challenge = {"WWW-Authenticate": 'Basic realm="give it to me"'}
    faulty.rule("/v2/", status=401, headers=challenge)
    client = mirrored(faulty.url, credentials=Credentials(USER, PASSWORD))
    with client, pytest.raises(RegistryUnauthorized):
        client.resolve(NODE)
    assert faulty.seen
    assert not [seen for seen in faulty.seen if "Authorization" in seen.headers]


def test_authorization_stays_behind_on_a_redirect(
    tmp_path: Path, server: RegistryServer, node: PushedImage
) -> None:
    """A storage host gets neither password nor token, and cannot ask for one either."""
    with (
        running_registry(tmp_path, auth="basic") as private,
        faulty_registry(server.address) as storage,
        faulty_registry(private.address) as front,
    ):
        push_image(private, "library/node", layers=[LAYER])
        path = f"/v2/library/node/blobs/{node.layers[0]}"
        front.rule("/blobs/", status=307, headers={"Location": f"{storage.url}{path}"})
        reference = Reference.parse(f"{front.address}/library/node")
        with insecure(front.address, Credentials(USER, PASSWORD)) as client:
            assert Digest.of(whole(client, reference)) == node.layers[0]
            assert front.requests("/blobs/")[-1].headers["Authorization"].startswith("Basic ")
            assert [seen.path for seen in storage.seen] == [path]
            assert "Authorization" not in storage.seen[0].headers
            challenge = {"WWW-Authenticate": 'Basic realm="give it to me"'}
            storage.rule("/blobs/", status=401, headers=challenge)
            with pytest.raises(RegistryUnauthorized):
                whole(client, reference)
            assert not [seen for seen in storage.seen if "Authorization" in seen.headers]


def test_a_redirect_in_a_circle_ends(faulty: FaultyRegistry) -> None:
    faulty.rule("/v2/", status=302, headers={"Location": f"{faulty.url}/v2/again"})
    with insecure(faulty.address) as client, pytest.raises(RegistryUnavailable, match="circle"):
        client.resolve(Reference.parse(f"{faulty.address}/library/node"))


# Security case 13


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.1.2.3"])
def test_a_user_cannot_reach_inside_by_naming_a_registry(name: str) -> None:
    started = time.monotonic()
    client = RegistryClient(f"{name}:6379", policy=QUICK)
    with client, pytest.raises(PolicyDenied) as caught:
        client.resolve(Reference("example.com", "a/b", "latest"))
    assert "QUAYSIDE_REGISTRY_MIRRORS" in caught.value.hint
    assert time.monotonic() - started < 5  # refused before connecting


# What goes wrong


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, RegistryUnauthorized, "sign in"),
        (403, RegistryUnauthorized, "the right to pull"),
        (404, RegistryNotFound, "spelling"),
        (429, RegistryRateLimited, "wait a while"),
        (418, RegistryError, "container registry"),
        (500, RegistryUnavailable, "trouble of its own"),
        (503, RegistryUnavailable, "trouble of its own"),
    ],
)
def test_an_answer_becomes_a_typed_error_with_a_way_out(
    faulty: FaultyRegistry, status: int, error: type[RegistryError], words: str
) -> None:
    body = b'{"errors":[{"code":"X","message":"said\\u0007 so"}]}'
    faulty.rule("/v2/", status=status, body=body)
    with insecure(faulty.address) as client, pytest.raises(error) as caught:
        client.resolve(Reference.parse(f"{faulty.address}/library/node"))
    assert type(caught.value) is error
    assert words in caught.value.hint
    assert caught.value.context["status"] == status
    assert caught.value.context["said"] == "said  so"
    again = status in (429, 500, 503)
    assert len(faulty.seen) == (QUICK.attempts if again else 1)


def test_a_server_error_that_passes_is_not_an_error(
    faulty: FaultyRegistry, node: PushedImage
) -> None:
    faulty.rule("/v2/", status=503, times=1)
    faulty.rule("/v2/", status=429, times=1, headers={"Retry-After": "1"})
    started = time.monotonic()
    with insecure(faulty.address) as client:
        found = client.resolve(Reference.parse(f"{faulty.address}/library/node"))
    assert found.descriptor.digest == node.manifest
    assert time.monotonic() - started > 1  # as long as it asked for


def test_a_long_wait_asked_for_is_said_instead(faulty: FaultyRegistry) -> None:
    faulty.rule("/v2/", status=429, headers={"Retry-After": "3600"})
    with insecure(faulty.address) as client, pytest.raises(RegistryRateLimited) as caught:
        client.resolve(Reference.parse(f"{faulty.address}/library/node"))
    assert caught.value.context["retry_after"] == 3600
    assert "3600 s" in caught.value.hint
    assert len(faulty.seen) == 1


def test_nobody_there(server: RegistryServer) -> None:
    with insecure("127.0.0.1:1") as client, pytest.raises(RegistryUnavailable) as caught:
        client.resolve(Reference.parse("127.0.0.1:1/a"))
    assert "connection refused" in caught.value.message
    unknown = RegistryClient("registry.invalid", policy=QUICK)
    with unknown as client, pytest.raises(RegistryUnavailable, match="name is not known"):
        client.resolve(Reference.parse("registry.invalid/a"))
    with pytest.raises(RegistryUnavailable, match="TLS failed"):
        RegistryClient("docker.io", mirrors=[f"https://{server.address}"], policy=QUICK).resolve(
            NODE
        )


def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    released = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            released.wait(10)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with serve_http(Silent) as address:
        short = RegistryClient(
            address, insecure={address}, timeouts=Timeouts(read=0.1), policy=QUICK
        )
        try:
            with short as client, pytest.raises(RegistryUnavailable, match="in time"):
                client.resolve(Reference.parse(f"{address}/a"))
            client = insecure(address)
            threading.Timer(0.2, client.abort).start()
            started = time.monotonic()
            with client, pytest.raises(Cancelled):
                client.resolve(Reference.parse(f"{address}/a"))
            assert time.monotonic() - started < 5
        finally:
            released.set()


def test_a_manifest_of_another_digest_is_refused(
    faulty: FaultyRegistry, server: RegistryServer, node: PushedImage
) -> None:
    faulty.rule("/manifests/", corrupt=True)
    with insecure(faulty.address) as client, pytest.raises(ContentCorrupt) as caught:
        client.resolve(Reference.parse(f"{faulty.address}/library/node"))
    assert "damaged" in caught.value.message
    with mirrored(faulty.url, server.url) as client:  # the next one has it sound
        assert client.resolve(NODE).descriptor.digest == node.manifest


def test_schema_1_and_what_is_no_image(faulty: FaultyRegistry) -> None:
    reference = Reference.parse(f"{faulty.address}/library/node")
    old = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    faulty.rule("/v2/", status=200, headers={"Content-Type": old}, body=b"{}", times=1)
    faulty.rule("/v2/", status=200, headers={"Content-Type": "text/html"}, body=b"<html>")
    with insecure(faulty.address) as client:
        with pytest.raises(Unsupported, match="schema 1"):
            client.resolve(reference)
        with pytest.raises(ContentCorrupt, match="text/html"):
            client.resolve(reference)


# Blobs


def test_a_broken_connection_goes_on_where_it_stopped(
    faulty: FaultyRegistry, node: PushedImage
) -> None:
    faulty.rule("/manifests/", times=0)
    faulty.rule("/blobs/", cut=node.sizes[0] // 3, times=2)
    with insecure(faulty.address) as client:
        reference = Reference.parse(f"{faulty.address}/library/node")
        assert Digest.of(whole(client, reference)) == node.layers[0]
    asked = [seen.headers.get("Range") for seen in faulty.requests("/blobs/")]
    third = node.sizes[0] // 3
    assert asked == [None, f"bytes={third}-", f"bytes={2 * third}-"]


def test_a_server_without_range_is_read_over(faulty: FaultyRegistry, node: PushedImage) -> None:
    faulty.rule("/blobs/", cut=node.sizes[0] // 2, times=1)
    faulty.rule("/blobs/", ignore_range=True)
    with insecure(faulty.address) as client:
        reference = Reference.parse(f"{faulty.address}/library/node")
        assert Digest.of(whole(client, reference)) == node.layers[0]


def test_a_connection_that_breaks_for_ever_ends(faulty: FaultyRegistry) -> None:
    faulty.rule("/blobs/", cut=10)
    with insecure(faulty.address) as client, pytest.raises(RegistryUnavailable) as caught:
        whole(client, Reference.parse(f"{faulty.address}/library/node"))
    assert "byte 30 of" in caught.value.message
    assert "what has arrived is kept" in caught.value.hint


def test_a_mirror_that_breaks_again_and_again_is_left_for_the_next(
    faulty: FaultyRegistry, server: RegistryServer, node: PushedImage
) -> None:
    faulty.rule("/blobs/", cut=10)
    with mirrored(faulty.url, server.url) as client:
        assert Digest.of(whole(client)) == node.layers[0]
    assert len(faulty.requests("/blobs/")) == 2


def test_a_blob_that_is_shorter_than_promised_is_damaged_not_broken(
    faulty: FaultyRegistry,
) -> None:
    faulty.rule("/blobs/", truncate=7)
    with insecure(faulty.address) as client, pytest.raises(ContentCorrupt):
        whole(client, Reference.parse(f"{faulty.address}/library/node"))
    assert len(faulty.requests("/blobs/")) == 1
