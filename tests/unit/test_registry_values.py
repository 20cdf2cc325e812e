"""Registry's pure parts: endpoints, challenges, tokens, failures, retry delays."""

from __future__ import annotations

import email.utils
import json
import time
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidInput, PolicyDenied, RegistryUnavailable
from engine.registry import Credentials, RetryPolicy, failures
from engine.registry.auth import (
    Challenge,
    choose_challenge,
    parse_challenges,
    read_token,
    token_query,
)
from engine.registry.connections import Guard
from engine.registry.endpoints import Endpoint, endpoints

HUB = Endpoint("https", "registry-1.docker.io")


def test_docker_io_is_asked_at_its_own_host_after_its_mirrors() -> None:
    found = endpoints("docker.io", mirrors=["http://127.0.0.1:5000", "https://m.example/cache/"])
    assert [e.url("library/node", "/manifests/22") for e in found] == [
        "http://127.0.0.1:5000/v2/library/node/manifests/22",
        "https://m.example/v2/cache/library/node/manifests/22",
        "https://registry-1.docker.io/v2/library/node/manifests/22",
    ]
    assert [e.trusted for e in found] == [True, True, False]
    assert all(e.verify for e in found)


def test_credentials_stay_with_the_origin_and_a_mirror_has_its_own() -> None:
    mine = Credentials("ann", "secret")
    found = endpoints("docker.io", mirrors=["https://bob:p%40ss@m.example:8443"], credentials=mine)
    assert found[0].host == "m.example:8443"
    assert found[0].credentials == Credentials("bob", "p@ss")
    assert found[1].credentials == mine
    assert "secret" not in repr(found) + repr(mine)
    assert "p@ss" not in str(found[0]) + repr(found[0])


@pytest.mark.parametrize(
    ("entry", "domain", "listed"),
    [
        ("r.example:5000", "r.example:5000", True),
        ("r.example", "r.example:5000", True),
        ("r.example:5000", "r.example", False),
        ("10.0.0.0/8", "10.1.2.3:5000", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("::1", "[::1]:5000", True),
    ],
)
def test_insecure_registries(entry: str, domain: str, listed: bool) -> None:
    found = endpoints(domain, insecure={entry})
    assert [(e.scheme, e.verify, e.trusted) for e in found] == (
        [("https", False, True), ("http", False, True)] if listed else [("https", True, False)]
    )


def test_an_own_mirror_is_how_a_private_registry_with_tls_is_allowed() -> None:
    found = endpoints("r.corp", mirrors=["https://r.corp"])
    assert [(e.host, e.trusted, e.verify) for e in found] == [("r.corp", True, True)] * 2


@pytest.mark.parametrize("url", ["ftp://a", "a", "http://", "http://a/?b"])
def test_a_bad_mirror_is_named(url: str) -> None:
    with pytest.raises(InvalidInput):
        endpoints("docker.io", mirrors=[url])


def test_challenges() -> None:
    header = (
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
        'scope="repository:library/node:pull,push", Basic realm="a \\"b\\""'
    )
    bearer, basic = parse_challenges([header])
    assert bearer == Challenge(
        "bearer",
        {
            "realm": "https://auth.docker.io/token",
            "service": "registry.docker.io",
            "scope": "repository:library/node:pull,push",
        },
    )
    assert basic == Challenge("basic", {"realm": 'a "b"'})
    assert choose_challenge([basic, bearer]) == bearer
    assert choose_challenge(parse_challenges(["Negotiate", "Basic realm=x"])) == Challenge(
        "basic", {"realm": "x"}
    )
    assert choose_challenge([]) is None
    assert token_query(Challenge("bearer", {"service": "s"}), "repository:a:pull") == (
        "service=s&scope=repository%3Aa%3Apull"
    )


@given(st.text(max_size=60))
def test_any_header_is_read_without_a_fault(text: str) -> None:
    for challenge in parse_challenges([text, f"Bearer {text}"]):
        assert challenge.scheme == challenge.scheme.lower()


def test_tokens() -> None:
    assert read_token(b'{"token":"abc","expires_in":300}', "r").header == "Bearer abc"
    assert read_token(b'{"access_token":"abc"}', "r").lifetime == 50
    assert read_token(b'{"token":"a","expires_in":5}', "r").lifetime == 4
    for odd in (b"", b"[]", b"{}", b'{"token":""}', b'{"token":"a\\r\\nX: y"}', b'{"token":1}'):
        with pytest.raises(RegistryUnavailable):
            read_token(odd, "r")


def test_the_servers_own_words_are_passed_on_bounded() -> None:
    body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "slow " * 100}]})
    failure = failures.of_answer(HUB, "library/node:22", 429, {}, body.encode(), signed_in=False)
    assert failure.again
    assert failure.after is None
    assert len(failure.error.message) < 300
    html = failures.of_answer(HUB, "x", 502, {}, b"<html>bad</html>", signed_in=False)
    assert "<" not in html.error.message
    for body_ in (b"[]", b'{"errors":[]}', b'{"errors":[1]}', b'{"errors":{}}'):
        failures.of_answer(HUB, "x", 404, {}, body_, signed_in=False)


def test_retry_after() -> None:
    moment = email.utils.formatdate(time.time() + 30, usegmt=True)
    for value, low, high in (("7", 7.0, 7.0), (moment, 25.0, 31.0)):
        headers = {"Retry-After": value}
        after = failures.of_answer(HUB, "x", 429, headers, b"", signed_in=False).after
        assert after is not None and low <= after <= high
    soon = failures.of_answer(HUB, "x", 429, {"Retry-After": "soon"}, b"", signed_in=False)
    assert soon.after is None


def test_delays_double_and_end() -> None:
    policy = RetryPolicy(attempts=4, first=1.0, longest=3.0, patience=10.0)
    first, second, third = (policy.delay(n, None) for n in (1, 2, 3))
    assert first is not None and 0.8 <= first <= 1.2
    assert second is not None and 1.6 <= second <= 2.4
    assert third is not None and 2.4 <= third <= 3.6
    assert policy.delay(4, None) is None
    assert policy.delay(1, 9.0) == 9.0
    assert policy.delay(1, 11.0) is None


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_public_addresses_are_reached(address: str) -> None:
    Guard().check("r.example", address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "224.0.0.1", "::1", "::", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::"),
    ],
)
def test_addresses_inside_are_refused(address: str) -> None:
    with pytest.raises(PolicyDenied, match="inside the host's own network"):
        Guard().check("r.example", address)


def test_addresses_inside_that_were_allowed() -> None:
    guard = Guard((IPv4Network("10.1.0.0/16"),), "allow {host}")
    guard.check("r.example", "10.1.2.3")
    guard.check("r.example", "::ffff:10.1.2.3")
    with pytest.raises(PolicyDenied) as caught:
        guard.check("r.example", "10.2.0.1")
    assert caught.value.hint == "allow r.example"
