"""The plan: stages, targets, origins, and everything refused before anything runs."""

from __future__ import annotations

import pytest

from engine.build.plan import Plan, make_plan
from engine.dockerfile import parse
from engine.errors import DockerfileError, NotFound, QuaysideError, Unsupported
from engine.oci.platform import Platform

HOST = Platform("amd64")


def plan(text: str, target: str = "", **args: str) -> Plan:
    return make_plan(parse(text), args, target, HOST)


def refused(text: str, kind: type[QuaysideError], line: int, **args: str) -> QuaysideError:
    with pytest.raises(kind) as caught:
        plan(text, **args)
    assert caught.value.context["line"] == line
    assert caught.value.context["source"] == text.splitlines()[line - 1]
    return caught.value


def test_steps_count_through_the_needed_stages() -> None:
    made = plan(
        "FROM a AS one\nRUN x\nFROM b AS unused\nRUN y\nFROM scratch\nCOPY --from=one /f /\n"
        "CMD \\\n  run\n"
    )
    assert [stage.index for stage in made.stages] == [0, 2]
    assert made.to_event() == {
        "t": "plan",
        "steps": [
            {"n": 1, "stage": "one", "text": "FROM a AS one", "line": 1, "end": 1},
            {"n": 2, "stage": "one", "text": "RUN x", "line": 2, "end": 2},
            {"n": 3, "stage": "2", "text": "FROM scratch", "line": 5, "end": 5},
            {"n": 4, "stage": "2", "text": "COPY --from=one /f /", "line": 6, "end": 6},
            {"n": 5, "stage": "2", "text": "CMD   run", "line": 7, "end": 8},
        ],
    }
    assert made.target.base is None
    assert made.steps[3].origin == 0
    assert made.target.needs == {0}


STAGES = "FROM a AS base\nFROM base AS build\nFROM c AS other\nFROM base\nCOPY --from=build / /\n"


@pytest.mark.parametrize(
    ("target", "stages"),
    [
        ("", [0, 1, 3]),
        ("base", [0]),
        ("BUILD", [0, 1]),
        ("other", [2]),
        ("0", [0]),
        ("3", [0, 1, 3]),
    ],
)
def test_targets(target: str, stages: list[int]) -> None:
    assert [stage.index for stage in plan(STAGES, target).stages] == stages


def test_an_unknown_target_names_the_known() -> None:
    with pytest.raises(NotFound, match="no stage nope") as caught:
        plan(STAGES, "nope")
    assert caught.value.hint == "it has base, build, other"


def test_from_takes_global_arguments_only() -> None:
    text = "ARG TAG=1\nARG NAME=img-$TAG\nFROM $NAME:$TAG\n"
    assert plan(text).target.base == "img-1:1"
    assert plan(text, TAG="2").target.base == "img-2:2"
    assert plan("FROM a\nARG X=b\nFROM b$X\n").target.base == "b"
    assert plan("FROM img-$TARGETARCH\n").target.base == "img-amd64"
    refused("FROM $NOPE\n", DockerfileError, 1)


def test_stage_names_and_numbers_in_copy_from() -> None:
    made = plan(
        "FROM a AS X\nFROM b\nCOPY --from=x / /\nCOPY --from=0 / /\nCOPY --from=img:1 / /\n"
    )
    assert [step.origin for step in made.target.steps] == [None, 0, 0, "img:1"]
    latest = plan("FROM a AS x\nFROM b AS x\nFROM c\nCOPY --from=x / /\n")
    assert latest.target.steps[1].origin == 1


def test_copy_from_what_is_no_earlier_stage() -> None:
    refused("FROM a\nCOPY --from=0 / /\n", DockerfileError, 2)
    refused("FROM a AS me\nCOPY --from=me / /\n", DockerfileError, 2)
    refused("FROM a\nCOPY --from=late / /\nFROM b AS late\nFROM c\n", DockerfileError, 2)


@pytest.mark.parametrize(
    "line",
    [
        "RUN --mount=type=cache,target=/c true",
        "RUN --network=host true",
        "COPY --link a b",
        "COPY --chmod=u+x a b",
        "COPY --parents a b",
        "COPY --exclude=*.md a b",
        "ADD https://example.org/x /x",
        "ADD git@github.com:a/b.git /x",
        "ADD https://github.com/a/b.git#main /x",
        "ADD --checksum=sha256:0 a b",
        "ADD --keep-git-dir a b",
    ],
)
def test_what_is_not_built_yet_names_its_line(line: str) -> None:
    error = refused(f"FROM a\n{line}\n", Unsupported, 2)
    assert "not supported yet" in error.message
    assert error.hint


def test_what_is_not_needed_is_not_refused() -> None:
    made = plan("FROM a AS x\nRUN --network=host true\nFROM b\n")
    assert len(made.stages) == 1


def test_platforms() -> None:
    assert plan("FROM --platform=linux/amd64 a\n").target.base == "a"
    assert plan("FROM --platform=$BUILDPLATFORM a\n").target.base == "a"
    refused("FROM --platform=linux/s390x a\n", Unsupported, 1)
    refused("FROM --platform=a/b/c/d a\n", DockerfileError, 1)
