"""Go's own table for path.Match (go/src/path/match_test.go), component by component."""

from __future__ import annotations

import pytest

from engine.build.globs import compile_name, has_meta
from engine.errors import InvalidInput

CASES = [
    ("abc", "abc", True),
    ("*", "abc", True),
    ("*c", "abc", True),
    ("a*", "a", True),
    ("a*", "abc", True),
    ("a*b*c*d*e*", "axbxcxdxe", True),
    ("a*b?c*x", "abxbbxdbxebxczzx", True),
    ("a*b?c*x", "abxbbxdbxebxczzy", False),
    ("ab[c]", "abc", True),
    ("ab[b-d]", "abc", True),
    ("ab[e-g]", "abc", False),
    ("ab[^c]", "abc", False),
    ("ab[^b-d]", "abc", False),
    ("ab[^e-g]", "abc", True),
    ("a\\*b", "a*b", True),
    ("a\\*b", "ab", False),
    ("a?b", "a☺b", True),
    ("a[^a]b", "a☺b", True),
    ("a???b", "a☺b", False),
    ("[a-ζ]*", "α", True),
    ("*[a-ζ]", "A", False),
    ("[\\]a]", "]", True),
    ("[\\-]", "-", True),
    ("[x\\-]", "x", True),
    ("[x\\-]", "z", False),
    ("[\\-x]", "-", True),
    ("[b-a]", "a", False),
    ("*x", "xxx", True),
    (".*", ".git", True),
    ("*", ".git", True),
    ("**", "abc", True),
    ("a[^x]", "a.", True),
    ("[&&]", "&", True),
    ("[[]x", "[x", True),
    ("[~|]", "|", True),
]


@pytest.mark.parametrize(("pattern", "name", "matches"), CASES)
def test_matches_as_go(pattern: str, name: str, matches: bool) -> None:
    assert bool(compile_name(pattern).fullmatch(name)) is matches


@pytest.mark.parametrize(
    "pattern", ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a["]
)
def test_what_go_calls_a_bad_pattern(pattern: str) -> None:
    with pytest.raises(InvalidInput, match="syntax error in pattern"):
        compile_name(pattern)


def test_a_backslash_at_the_end_is_bad() -> None:
    with pytest.raises(InvalidInput):
        compile_name("a\\")


def test_meta() -> None:
    assert has_meta("*.js")
    assert has_meta("a\\b")
    assert not has_meta("package.json")
