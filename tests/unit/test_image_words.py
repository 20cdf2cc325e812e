"""Images as docker's client hears of them: lines of progress, filters, changes; pure parts."""

from __future__ import annotations

from typing import Any

import pytest

from engine.api.image_filters import name_pattern
from engine.api.image_progress import PullLines, PushLines, bar
from engine.api.registry_words import pull_error, sign_in_of
from engine.errors import InvalidInput, RegistryNotFound, RegistryUnauthorized, Unsupported
from engine.oci.image import ContainerConfig
from engine.services.work.image_changes import changed, merged


def layer(digit: str, kind: str, current: int = 0, total: int = 10) -> dict[str, Any]:
    return {"digest": f"sha256:{digit * 64}", "kind": kind, "current": current, "total": total}


def said(lines: list[dict[str, Any]]) -> list[str]:
    return [f"{line['id'][0]} {line['status']}" for line in lines]


def test_a_pull_says_each_state_once_whatever_was_passed_over() -> None:
    lines = PullLines()
    first = lines.next({"layers": [layer("a", "exists", 10), layer("b", "downloading")]})
    assert said(first) == ["a Already exists", "b Pulling fs layer"]
    halfway = lines.next({"layers": [layer("a", "exists", 10), layer("b", "downloading", 5)]})
    assert halfway == [bar("Downloading", "b" * 12, 5, 10)]
    assert lines.next({"layers": [layer("b", "downloading", 5)]}) == []
    assert said(lines.next({"layers": [layer("b", "done", 10)]})) == [
        "b Verifying Checksum",
        "b Download complete",
        "b Pull complete",
    ]
    assert lines.next({"layers": [layer("b", "done", 10)]}) == []


def test_a_push_says_where_layers_come_from() -> None:
    lines = PushLines()
    assert said(lines.next({"layers": [layer("a", "preparing"), layer("b", "preparing")]})) == [
        "a Preparing",
        "b Preparing",
    ]
    mounted = {**layer("a", "mounted", 10), "from": "me/app"}
    assert said(lines.next({"layers": [mounted, layer("b", "exists", 10)]})) == [
        "a Mounted from me/app",
        "b Layer already exists",
    ]


def test_a_bar_as_docker_draws_it() -> None:
    assert bar("x", "y", 1_250_000, 2_500_000)["progress"] == (
        "[=========================>                         ]   1.25MB/2.5MB"
    )
    assert bar("x", "y", 7, 0)["progress"] == "      7B"


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("node", "node", True),
        ("no*", "node:20", True),
        ("*", "me/app", False),
        ("*/app", "me/app", True),
        ("no[a-d]e", "node", True),
        ("no[^a-d]e", "node", False),
        ("n?de", "node", True),
        ("a.b", "axb", False),
    ],
)
def test_reference_patterns_are_those_of_go(pattern: str, name: str, fits: bool) -> None:
    assert bool(name_pattern(pattern).fullmatch(name)) is fits


def test_changes_go_over_the_containers_config() -> None:
    own = ContainerConfig(
        env=("A=1", "B=2"), cmd=("sh",), entrypoint=("/e",), user="u", labels={"x": "1"}
    )
    asked = changed(ContainerConfig(), ["ENV B=3 C=4", "LABEL y=2", "WORKDIR /w", "EXPOSE 80"])
    found = merged(asked, own)
    assert found.env == ("B=3", "C=4", "A=1")
    assert (found.cmd, found.entrypoint, found.user) == (("sh",), ("/e",), "u")
    assert (found.labels, found.working_dir) == ({"x": "1", "y": "2"}, "/w")
    assert found.exposed_ports == ("80/tcp",)
    # Without a config of the request they are lines after its own.
    assert merged(changed(own, ["ENV C=4"]), own).env == ("A=1", "B=2", "C=4")
    # An entrypoint of one's own resets the command, as with docker run.
    assert merged(changed(ContainerConfig(), ['ENTRYPOINT ["/f"]']), own).cmd is None
    assert merged(changed(ContainerConfig(), ['CMD ["x"]']), own).entrypoint == ("/e",)


@pytest.mark.parametrize("line", ["RUN x", "FROM y", "BOGUS z", "COPY a b"])
def test_a_change_that_is_none(line: str) -> None:
    with pytest.raises(InvalidInput, match="is not a valid change command"):
        changed(ContainerConfig(), [line])


def test_registries_errors_in_mobys_words() -> None:
    unknown = RegistryNotFound("x", code="MANIFEST_UNKNOWN")
    assert pull_error("node:1", unknown) == (
        404,
        "manifest for node:1 not found: manifest unknown: manifest unknown",
    )
    denied = pull_error("me/x", RegistryUnauthorized("x", status=401))
    text = "repository does not exist or may require 'docker login'"
    refused = "denied: requested access to the resource is denied"
    assert denied == (404, f"pull access denied for me/x, {text}: {refused}")


def test_the_sign_in_of_a_request() -> None:
    found = sign_in_of("eyJ1c2VybmFtZSI6ImFubiIsInBhc3N3b3JkIjoi8J-YgD8_In0=")
    assert found is not None
    assert (found.username, found.password) == ("ann", "😀??")
    for nobody in ("", "e30=", "not base64!", "bnVsbA=="):
        assert sign_in_of(nobody) is None
    with pytest.raises(Unsupported):
        sign_in_of("eyJyZWdpc3RyeXRva2VuIjoieCJ9")
