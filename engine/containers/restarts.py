"""Restart policies, decided: whether an end is followed by a start, and how long that waits. Pure.

moby's rules (restartmanager): 100 ms at first, doubled up to a minute by each end, and 100 ms again
after a run of ten seconds. Leaves rows and the waiting itself to engine.services.work.restarts.
"""

from __future__ import annotations

from engine.containers.options import RestartPolicy

FIRST_SECONDS = 0.1
MOST_SECONDS = 60.0
# A run this long was one that worked: what comes after it waits as for the first time.
GOOD_SECONDS = 10.0


def restarts(policy: RestartPolicy, code: int, count: int, *, by_hand: bool) -> bool:
    """Whether a container that ended with `code`, and was started again `count` times by its
    policy so far, is started once more. `by_hand`: its end was asked for."""
    if by_hand:
        return False
    if policy.name == "on-failure":
        return code != 0 and (policy.max_retries == 0 or count < policy.max_retries)
    return policy.name in ("always", "unless-stopped")


def comes_up(policy: RestartPolicy, *, by_hand: bool) -> bool:
    """Whether a container that is down comes up with the engine: `always` even when somebody had
    stopped it, as with Docker."""
    return policy.name == "always" or (policy.name == "unless-stopped" and not by_hand)


def wait_seconds(before: float | None, ran: float) -> float:
    """How long the next start waits. `before` is how long the last one did, None for none; `ran`
    how long the run between them was, in seconds."""
    if before is None or ran >= GOOD_SECONDS:
        return FIRST_SECONDS
    return min(2 * before, MOST_SECONDS)
