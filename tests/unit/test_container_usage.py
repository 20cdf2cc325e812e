"""Two readings become figures as `docker stats` counts them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from engine.containers.stats import BlockIO, Cpu, Memory, Sample, machine_memory
from engine.containers.usage import usage

AT = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = 10**9


def cpu(mine: int, machine: int) -> Cpu:
    return Cpu(total=mine, kernel=0, user=mine, per_cpu=(), system=machine, online=4)


FIRST = Sample(
    read_at=AT,
    cpu=cpu(SECOND, 100 * SECOND),
    memory=Memory(100 << 20, 256 << 20, 0, 0, {"total_inactive_file": 30 << 20}),
    pids=3,
    pids_limit=100,
    bytes=(BlockIO(8, 0, "Read", 4096), BlockIO(8, 0, "Write", 100), BlockIO(8, 0, "Total", 4196)),
    networks={"eth0": {"rx_bytes": 1000, "tx_bytes": 10}, "eth1": {"rx_bytes": 5, "tx_bytes": 0}},
)


def test_one_reading_has_totals_and_no_rates() -> None:
    found = usage(FIRST)
    assert (found.cpu, found.received_rate, found.written_rate) == (None, None, None)
    assert found.memory == 70 << 20 and found.limit == 256 << 20 and found.limited
    assert (found.received, found.sent, found.read, found.written) == (1005, 10, 4096, 100)
    assert found.at == AT.timestamp() * 1000


def test_two_readings_have_rates() -> None:
    now = replace(
        FIRST,
        read_at=AT + timedelta(seconds=2),
        # One of four processors, all of the time.
        cpu=cpu(3 * SECOND, 108 * SECOND),
        networks={"eth0": {"rx_bytes": 3000, "tx_bytes": 10}},
        bytes=(BlockIO(8, 0, "read", 4096), BlockIO(8, 0, "write", 300)),
    )
    found = usage(now, FIRST)
    assert found.cpu == 100.0
    assert found.received_rate == 997.5 and found.sent_rate == 0.0
    assert found.read_rate == 0.0 and found.written_rate == 100.0


def test_a_network_that_was_left_and_a_clock_that_stands_are_no_negative_figures() -> None:
    now = replace(FIRST, read_at=AT + timedelta(seconds=1), networks={})
    found = usage(now, FIRST)
    assert (found.received_rate, found.cpu) == (0.0, 0.0)
    assert usage(FIRST, FIRST).received_rate is None


def test_without_a_limit_it_is_the_machines_memory() -> None:
    memory = replace(FIRST.memory, limit=machine_memory())
    assert not usage(replace(FIRST, memory=memory)).limited
