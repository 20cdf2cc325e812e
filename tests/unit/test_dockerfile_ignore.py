"""Patterns of paths and .dockerignore: Docker's rules, the order of lines, what may be pruned."""

from __future__ import annotations

import fnmatch
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dockerfile.dockerignore import DockerIgnore
from engine.dockerfile.patterns import Matcher
from engine.errors import DockerfileError


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("docs", ["docs", "docs/a", "docs/a/b"], ["docs2", "x/docs", "doc"]),
        ("docs/", ["docs", "docs/a"], ["x/docs"]),
        ("/docs", ["docs/a"], ["x/docs"]),
        ("./a/../docs", ["docs"], ["a"]),
        ("*", ["a", ".a", "a/b"], []),
        ("*.md", ["a.md", "a.md/b"], ["x/a.md", "a.mdx"]),
        ("*/*.md", ["x/a.md"], ["a.md", "x/y/a.md"]),
        ("a?", ["ab", "ab/c"], ["a", "a/", "abc"]),
        ("[a-c]x", ["ax", "cx"], ["dx"]),
        ("[^a-c]x", ["dx", "-x"], ["ax"]),
        (r"[\]a\-]x", ["]x", "-x", "ax"], ["bx"]),
        (r"\*", ["*"], ["a"]),
        (r"\#x", ["#x"], ["x"]),
        ("a.b", ["a.b"], ["axb"]),
        ("a(b)+{c}|$^", ["a(b)+{c}|$^"], ["ab"]),
        ("**", ["a", "a/b", ".x"], []),
        ("**/x", ["x", "a/x", "a/b/x/c"], ["ax", "x2"]),
        ("**x", ["x", "ax", "a/bx"], ["xa"]),
        ("**/*.pyc", ["a.pyc", "a/b/c.pyc"], ["a.py"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab"]),
        ("a**", ["a", "ab", "ab/c"], ["b"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb"]),
        ("**/a/**/b*", ["a/b", "x/a/y/bc"], ["b", "a"]),
        ("**/node_modules/**/*.md", ["node_modules/a.md", "x/node_modules/y/z.md"], ["a.md"]),
        ("서버*", ["서버.js"], ["버.js"]),
        (".", [], ["a"]),
        ("../x", [], ["x"]),
    ],
)
def test_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    ignore = DockerIgnore.parse(pattern)
    assert [path for path in yes if not ignore.ignores(path)] == []
    assert [path for path in no if path and ignore.ignores(path.rstrip("/"))] == []


def test_the_last_line_that_matches_wins() -> None:
    ignore = DockerIgnore.parse("*.md\n!README*.md\nREADME-secret.md\n")
    assert ignore.ignores("a.md")
    assert not ignore.ignores("README.md")
    assert ignore.ignores("README-secret.md")
    assert DockerIgnore.parse("!a.md\n*.md").ignores("a.md")
    below = DockerIgnore.parse("docs\n!docs/keep\ndocs/keep/not")
    assert below.ignores("docs/x")
    assert not below.ignores("docs/keep")
    assert not below.ignores("docs/keep/a/b")
    assert below.ignores("docs/keep/not/x")


def test_how_the_file_is_read() -> None:
    ignore = DockerIgnore.parse(
        "\ufeff# comment\r\n\r\n  spaced  \r\n # not a comment\nall/*\n! \t/all/keep/\n".encode()
    )
    assert ignore.ignores("spaced")
    assert ignore.ignores("# not a comment")
    assert not ignore.ignores("comment")
    assert not ignore.ignores("all/keep/x")
    assert ignore.ignores("all/x")
    assert not DockerIgnore.parse("*").ignores("")
    assert not DockerIgnore.parse("*").ignores(".")
    assert not DockerIgnore.parse("").ignores("a")


@pytest.mark.parametrize(
    "pattern", ["[", "a[", "[]a]", "[-]", "[x-]", "[a-b-c]", "[^", "x\\", "!", "! "]
)
def test_a_bad_pattern_has_its_line(pattern: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        DockerIgnore.parse(f"ok\n\n{pattern}\n", file="Dockerfile.dockerignore")
    assert (caught.value.line, caught.value.context["source"]) == (3, pattern.strip())
    assert caught.value.context["file"] == "Dockerfile.dockerignore"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "walk", "skip"),
    [
        ("node_modules", ["src"], ["node_modules", "node_modules/a"]),
        ("*\n!src/app", ["src", "src/app", "src/app/x"], ["lib", "src/lib", "src/app2"]),
        ("*\n!*/keep", ["a", "b"], ["a/b", "a/b/c"]),
        ("*\n!**/keep", ["a", "a/b"], []),
        ("a\n!a/b\na/b", [], ["a/b", "a/b/c"]),
        ("*\n!a/b*/c", ["a", "a/bx", "a/bx/c", "a/bx/c/d"], ["a/c", "b"]),
    ],
)
def test_what_need_not_be_walked(text: str, walk: list[str], skip: list[str]) -> None:
    ignore = DockerIgnore.parse(text)
    assert all(ignore.may_contain_included(folder) for folder in ["", *walk])
    assert not any(ignore.may_contain_included(folder) for folder in skip)


PART = st.text("ab", min_size=1, max_size=2)
PATH = st.lists(PART, min_size=1, max_size=4).map("/".join)
LINE = st.lists(
    st.sampled_from(["a", "b", "ab", "*", "**", "?", "a*", "**a", "*b*", "[ab]", "[^a]"]),
    min_size=1,
    max_size=4,
).map("/".join)
LINES = st.lists(st.tuples(st.booleans(), LINE), max_size=5).map(
    lambda lines: "\n".join(f"{'!' if keep else ''}{line}" for keep, line in lines)
)


def reference(text: str, path: str) -> bool:
    """moby/patternmatcher's MatchesOrParentMatches, by its own regular expressions."""
    ignored = False
    for line in text.splitlines():
        pattern = line.removeprefix("!")
        expression = re.sub(
            r"\*\*/?\Z|\*\*/?|\*|\?",
            lambda match: {"*": "[^/]*", "?": "[^/]"}.get(
                match[0], ".*" if match.end() == len(match.string) else "(.*/)?"
            ),
            pattern,
        )
        names = ["/".join(path.split("/")[: n + 1]) for n in range(path.count("/") + 1)]
        suffix = re.fullmatch(r"\*\*([ab/]+)", pattern)
        if any(
            re.fullmatch(expression, name) or (suffix is not None and name.endswith(suffix[1]))
            for name in names
        ):
            ignored = line == pattern
    return ignored


@given(LINES, st.lists(PATH, min_size=1, max_size=5))
def test_ignores_what_docker_ignores(text: str, paths: list[str]) -> None:
    ignore = DockerIgnore.parse(text)
    for path in paths:
        assert ignore.ignores(path) == reference(text, path)


@given(LINES, PATH, PATH)
def test_nothing_is_kept_below_what_is_not_walked(text: str, folder: str, below: str) -> None:
    ignore = DockerIgnore.parse(text)
    if not ignore.may_contain_included(folder):
        assert ignore.ignores(f"{folder}/{below}")


@given(st.text("ab?*", min_size=1, max_size=8), st.text("ab", min_size=1, max_size=8))
def test_globs_within_a_name(pattern: str, name: str) -> None:
    single = re.sub(r"\*+", "*", pattern)
    assert Matcher([single]).matches(name) == fnmatch.fnmatchcase(name, single)


def test_no_pattern_takes_forever() -> None:
    path = "/".join(["aaaaaaaaaa"] * 20)
    begin = time.monotonic()
    assert not Matcher(["**/a*/**/a*/**/*a*/**/b*c", "*a" * 20 + "b"]).matches(path)
    assert not Matcher(["*a" * 30 + "b"]).matches("a" * 200)
    assert time.monotonic() - begin < 5


def test_a_deep_path_and_many_patterns() -> None:
    ignore = DockerIgnore.parse("\n".join(f"p{number}" for number in range(200)) + "\n**/z")
    deep = "/".join(["d"] * 1500)
    assert not ignore.ignores(deep)
    assert ignore.ignores(f"{deep}/z/x")
