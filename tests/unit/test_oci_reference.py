"""Reference and Digest against the tables of distribution/reference, and as properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidInput, InvalidReference
from engine.oci.digest import Digest, chain_id, chain_ids
from engine.oci.reference import Reference

HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("node", "docker.io/library/node:latest", "node:latest"),
        ("node:22-slim", "docker.io/library/node:22-slim", "node:22-slim"),
        ("library/node", "docker.io/library/node:latest", "node:latest"),
        ("docker.io/node", "docker.io/library/node:latest", "node:latest"),
        ("index.docker.io/node", "docker.io/library/node:latest", "node:latest"),
        ("docker.io/library/node:1", "docker.io/library/node:1", "node:1"),
        ("team/app", "docker.io/team/app:latest", "team/app:latest"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("docker.io/localhost/app", "docker.io/localhost/app:latest", None),
        ("docker.io/a.b/app", "docker.io/a.b/app:latest", None),
        ("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"),
        ("[2001:db8::1]:5000/a", "[2001:db8::1]:5000/a:latest", None),
        ("Uppercase/app", "Uppercase/app:latest", None),
        ("a__b/c.d-e--f", "docker.io/a__b/c.d-e--f:latest", "a__b/c.d-e--f:latest"),
        (f"node@{DIGEST}", f"docker.io/library/node@{DIGEST}", f"node@{DIGEST}"),
        (f"node:1@{DIGEST}", f"docker.io/library/node:1@{DIGEST}", f"node:1@{DIGEST}"),
        ("sha256:abc", "docker.io/library/sha256:abc", "sha256:abc"),
    ],
)
def test_normalises_as_docker_does(text: str, canonical: str, familiar: str | None) -> None:
    reference = Reference.parse(text)
    assert reference.canonical() == canonical
    assert reference.familiar() == (familiar or canonical)
    assert Reference.parse(reference.familiar()) == reference
    assert Reference.parse(canonical) == reference


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "like node:22"),
        ("Node", "lower case"),
        ("docker.io/Team/App", "lower case"),
        ("https://ghcr.io/a/b", "leave the http"),
        ("a:b:c", "a tag is"),
        ("a/b:", "after the colon"),
        ("a:" + "t" * 129, "128"),
        ("a:-x", "a tag is"),
        ("a//b", "parted by slashes"),
        ("-a", "parted by slashes"),
        ("a_", "parted by slashes"),
        ("a..b", "parted by slashes"),
        ("a___b", "parted by slashes"),
        ("a b", "parted by slashes"),
        ("../etc/passwd", "host name"),
        ("a/../b", "parted by slashes"),
        ("-x.y/z", "host name"),
        ("host:port/z", "host name"),
        (" node", "blanks"),
        ("node\n", "blanks"),
        (HEX, "name@sha256:"),
        ("node@sha256:12", "64 hexadecimal"),
        (f"node@sha512:{HEX}{HEX}", "sha256"),
        (f"node@{DIGEST}@{DIGEST}", "64 hexadecimal"),
        ("a" * 256, "shorten"),
        ("a/" * 10_000_000, "shorten"),
        ("n\u00f6de", "parted by slashes"),
        ("a:\u0661", "a tag is"),
    ],
)
def test_refuses_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    assert hint in caught.value.hint


COMPONENT = st.from_regex(r"[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}", fullmatch=True)


@given(
    domain=st.sampled_from(["docker.io/", "localhost/", "r.example:5000/", "Host/", "[::1]:1/"]),
    path=st.lists(COMPONENT, min_size=1, max_size=4),
    tag=st.sampled_from(["", ":1", ":_a.b-C"]),
    digest=st.sampled_from(["", f"@{DIGEST}"]),
)
def test_both_forms_read_back_as_the_same(
    domain: str, path: list[str], tag: str, digest: str
) -> None:
    reference = Reference.parse(domain + "/".join(path) + tag + digest)
    assert Reference.parse(reference.familiar()) == reference
    assert Reference.parse(reference.canonical()) == reference


@given(st.text(alphabet="aA0.:/@-_[] \n\u00e9", max_size=20))
def test_any_text_is_a_reference_or_an_error(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference as error:
        assert error.hint
    else:
        assert Reference.parse(reference.familiar()) == reference


def test_tag_and_digest_are_exchanged() -> None:
    reference = Reference.parse(f"team/app:1@{DIGEST}")
    assert reference.with_tag("2").familiar() == "team/app:2"
    assert Reference.parse("node:1").with_digest(Digest(DIGEST)).familiar() == f"node:1@{DIGEST}"
    with pytest.raises(InvalidReference):
        reference.with_tag("no tag")


def test_digest_is_validated_and_plain_text() -> None:
    assert Digest.of(b"test") == DIGEST
    assert Digest(DIGEST).hex == HEX
    assert Digest.from_hex(HEX) == DIGEST
    for text in ("", HEX, f"sha256:{HEX.upper()}", f"{DIGEST}\n", "sha256:../../etc", f"md5:{HEX}"):
        with pytest.raises(InvalidInput):
            Digest.parse(text)


def test_chain_ids_follow_the_image_spec() -> None:
    first, second, third = (Digest.of(name) for name in (b"1", b"2", b"3"))
    two = Digest.of(f"{first} {second}".encode())
    three = Digest.of(f"{two} {third}".encode())
    assert chain_ids([first, second, third]) == (first, two, three)
    assert chain_id([first]) == first
    assert chain_ids([]) == ()
    with pytest.raises(InvalidInput):
        chain_id([])
