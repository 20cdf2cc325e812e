"""The log's events: text over chunk borders, pulls held back, output bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from engine.build import report
from engine.build.plan import Step, make_plan
from engine.build.ports import LayerProgress
from engine.build.report import Reporter
from engine.dockerfile import parse


class Log:
    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []

    def event(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def step() -> Step:
    return make_plan(parse("FROM a\nRUN b"), {}).steps[1]


def test_characters_cut_by_a_chunk(log: Log, step: Step) -> None:
    output = Reporter(log).output(step)
    data = "컨테이너\n".encode()
    for at in range(len(data)):
        output.write("stdout", data[at : at + 1])
    output.write("stderr", b"\xff\xed")
    output.flush()
    assert "".join(e["d"] for e in log.events if e["s"] == 1) == "컨테이너\n"
    assert "".join(e["d"] for e in log.events if e["s"] == 2) == "\ufffd\ufffd"
    assert all(e["t"] == "out" and e["n"] == 2 and e["d"] for e in log.events)


def test_output_is_bounded(log: Log, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "OUTPUT_LIMIT", 100)
    output = Reporter(log).output(step)
    for _ in range(50):
        output.write("stdout", b"x" * 10)
    output.flush()
    text = "".join(e["d"] for e in log.events)
    assert text.count("x") == 100
    assert text.endswith("is left out]\n")


def test_pulls_say_little_but_always_their_end(
    log: Log, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 100.0
    monkeypatch.setattr(report.time, "monotonic", lambda: clock)
    progress = Reporter(log).pull(step)
    for current in range(1000):
        clock += 0.001
        progress(LayerProgress("a", current, 1000, "downloading"))
    progress(LayerProgress("b", 1, 1, "done"))
    progress(LayerProgress("a", 1000, 1000, "done"))
    assert len(log.events) <= 6
    assert [layer["kind"] for layer in log.events[-1]["layers"]] == ["done", "done"]


def test_a_cached_step_takes_no_seconds(log: Log, step: Step) -> None:
    reporter = Reporter(log)
    reporter.begin(step)
    reporter.ended(step, "cached")
    (result,) = reporter.results
    assert (result.state, result.seconds, result.line) == ("cached", 0.0, 2)
    assert log.events[-1]["state"] == "cached"
    assert "reason" not in log.events[-1]
