"""docker gives with Quayside what it gives with dockerd: the cases of cases.txt."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.conformance.cases import Case, read_cases, read_differences
from tests.conformance.run import Result, differences

CASES = read_cases()
KNOWN = read_differences()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_as_dockerd(case: Case, results: Mapping[str, tuple[Result, Result]]) -> None:
    unequal = differences(*results[case.title])
    if case.title in KNOWN:
        assert unequal, f"no longer differs: take it off differences.txt ({KNOWN[case.title]})"
    else:
        assert not unequal, "\n".join(unequal)


def test_listed_differences_name_cases() -> None:
    assert not set(KNOWN) - {case.title for case in CASES}
