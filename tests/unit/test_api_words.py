"""Times and states as Docker writes and reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from engine.api import words

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (61, "About a minute"),
        (125, "2 minutes"),
        (3600, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (3 * 86400, "3 days"),
        (15 * 86400, "2 weeks"),
        (70 * 86400, "2 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations_are_go_units(seconds: float, text: str) -> None:
    assert words.duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("state", "code", "health", "text"),
    [
        ("created", None, None, "Created"),
        ("running", None, None, "Up 3 minutes"),
        ("running", None, {"status": "starting"}, "Up 3 minutes (health: starting)"),
        ("running", None, {"status": "unhealthy"}, "Up 3 minutes (unhealthy)"),
        ("running", None, {"status": "none"}, "Up 3 minutes"),
        ("paused", None, {"status": "healthy"}, "Up 3 minutes (Paused)"),
        ("restarting", 1, None, "Restarting (1) 5 seconds ago"),
        ("exited", 0, None, "Exited (0) 5 seconds ago"),
        ("removing", 0, None, "Removal In Progress"),
        ("dead", 0, None, "Dead"),
    ],
)
def test_the_status_column(
    state: str, code: int | None, health: dict[str, str] | None, text: str
) -> None:
    started = None if state == "created" else NOW - timedelta(minutes=3)
    ended = NOW - timedelta(seconds=5)
    assert (
        words.status(
            state,
            now=NOW,
            started_at=started,
            finished_at=ended,
            exit_code=code,
            health=health,
        )
        == text
    )


def test_timestamps_have_the_digits_they_need() -> None:
    assert words.timestamp(None) == "0001-01-01T00:00:00Z"
    assert words.timestamp(NOW) == "2026-11-24T12:00:00Z"
    assert words.timestamp(NOW.replace(microsecond=120_000)) == "2026-11-24T12:00:00.12Z"


def test_the_command_column_quotes_arguments_with_a_space() -> None:
    assert words.command(["sh", "-c", "echo hi"]) == "sh -c 'echo hi'"
    assert words.command([]) == ""


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1795521600", datetime(2026, 11, 24, 12, tzinfo=UTC)),
        ("1795521600.5", datetime(2026, 11, 24, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("1795521600.123456789", datetime(2026, 11, 24, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("10m", NOW - timedelta(minutes=10)),
        ("1h30m", NOW - timedelta(minutes=90)),
        ("0s", NOW),
        ("2026-11-24", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-11-24T11", datetime(2026, 11, 24, 11, tzinfo=UTC)),
        ("2026-11-24T11:30", datetime(2026, 11, 24, 11, 30, tzinfo=UTC)),
        ("2026-11-24T11:30:15.25Z", datetime(2026, 11, 24, 11, 30, 15, 250_000, tzinfo=UTC)),
        ("2026-11-24T11:30:15+09:00", datetime(2026, 11, 24, 2, 30, 15, tzinfo=UTC)),
    ],
)
def test_moments_as_since_and_until_have_them(text: str, moment: datetime) -> None:
    assert words.point(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "99999999999999", "2026-13-40", "5x"])
def test_what_is_no_moment(text: str) -> None:
    assert words.point(text, NOW) is None
