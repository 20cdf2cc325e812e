"""Restart policies and health checks as rules: no rows, no machine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from engine.containers import health
from engine.containers.health import TIMED_OUT, Probe, Result
from engine.containers.options import RestartPolicy
from engine.containers.restarts import comes_up, restarts, wait_seconds
from engine.oci import Healthcheck

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SECOND = 10**9


@pytest.mark.parametrize(
    ("policy", "code", "count", "expected"),
    [
        (RestartPolicy(), 1, 0, False),
        (RestartPolicy("always"), 0, 99, True),
        (RestartPolicy("unless-stopped"), 0, 0, True),
        (RestartPolicy("on-failure"), 0, 0, False),
        (RestartPolicy("on-failure"), 1, 99, True),
        (RestartPolicy("on-failure", 2), 1, 1, True),
        (RestartPolicy("on-failure", 2), 1, 2, False),
    ],
)
def test_an_end_is_undone_by_the_policy_and_never_one_by_hand(
    policy: RestartPolicy, code: int, count: int, expected: bool
) -> None:
    assert restarts(policy, code, count, by_hand=False) is expected
    assert not restarts(policy, code, count, by_hand=True)


def test_what_comes_up_with_the_engine() -> None:
    assert comes_up(RestartPolicy("always"), by_hand=True)
    assert comes_up(RestartPolicy("unless-stopped"), by_hand=False)
    assert not comes_up(RestartPolicy("unless-stopped"), by_hand=True)
    assert not comes_up(RestartPolicy("on-failure"), by_hand=False)
    assert not comes_up(RestartPolicy(), by_hand=False)


def test_waits_double_up_to_a_minute_and_begin_anew_after_a_good_run() -> None:
    waits = [wait_seconds(None, 0)]
    for _ in range(11):
        waits.append(wait_seconds(waits[-1], 1))
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == 60
    assert wait_seconds(60, 10) == 0.1


def test_a_probe_has_dockers_defaults() -> None:
    probe = Probe.of(Healthcheck(("CMD-SHELL", "true")))
    assert probe == Probe(("/bin/sh", "-c", "true"), 30, 30, 0, 5, 3)
    shell = Probe.of(Healthcheck(("CMD-SHELL", "x"), interval=SECOND // 2), ("/bin/ash", "-c"))
    assert shell is not None
    assert (shell.argv, shell.interval) == (("/bin/ash", "-c", "x"), 0.5)
    given = Probe.of(Healthcheck(("CMD", "a", "b"), timeout=SECOND, retries=1))
    assert given is not None
    assert (given.argv, given.timeout, given.retries) == (("a", "b"), 1, 1)
    for none in (None, Healthcheck(), Healthcheck(("NONE",)), Healthcheck(())):
        assert Probe.of(none) is None
        assert health.begun(None, none) is None


def test_within_the_start_period_probes_come_by_its_own_interval() -> None:
    probe = Probe(("x",), interval=30, start_period=10, start_interval=2)
    assert probe.wait("starting", 1) == 2
    assert probe.wait("starting", 10) == 30
    assert probe.wait("healthy", 1) == 30


def result(code: int, output: str = "") -> Result:
    return Result(NOW, NOW, code, output)


def states(probe: Probe, *codes: int, since: float = 0) -> list[tuple[str, int]]:
    now: dict[str, Any] = health.begun(None, Healthcheck(("CMD", "x"))) or {}
    found = []
    for code in codes:
        now = health.after(now, probe, result(code), since)
        found.append((now["status"], now["failing_streak"]))
    return found


def test_the_status_follows_the_results() -> None:
    probe = Probe(("x",), retries=2)
    assert states(probe, 0, 1, TIMED_OUT, 1, 0) == [
        ("healthy", 0),
        ("healthy", 1),
        ("unhealthy", 2),
        ("unhealthy", 3),
        ("healthy", 0),
    ]
    assert states(probe, 1, 1) == [("starting", 1), ("unhealthy", 2)]


def test_failures_within_the_start_period_do_not_count_until_the_first_success() -> None:
    probe = Probe(("x",), retries=1, start_period=5)
    assert states(probe, 1, 1, since=4) == [("starting", 0), ("starting", 0)]
    assert states(probe, 0, 1, since=4) == [("healthy", 0), ("unhealthy", 1)]
    assert states(probe, 1, since=5) == [("unhealthy", 1)]


def test_the_last_five_results_are_kept_over_a_restart_too() -> None:
    now: dict[str, Any] = {"status": "starting", "failing_streak": 0, "log": []}
    for n in range(7):
        now = health.after(now, Probe(("x",)), result(n, "o" * 5000), 0)
    assert [entry["exit_code"] for entry in now["log"]] == [2, 3, 4, 5, 6]
    assert len(now["log"][0]["output"]) == 4096
    over = health.ended(now)
    assert over is not None
    assert over["status"] == "unhealthy"
    again = health.begun(over, Healthcheck(("CMD", "x")))
    assert again is not None
    assert (again["status"], again["failing_streak"], len(again["log"])) == ("starting", 0, 5)
