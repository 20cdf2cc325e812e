"""Expansion: each form the reference names, its limits, and which instruction expands what."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dockerfile import expand, expand_words, parse, substitute
from engine.dockerfile import instructions as ast
from engine.dockerfile.expansion import Rules, expand_heredoc, expanded
from engine.dockerfile.globs import ShellPattern
from engine.errors import DockerfileError, InvalidInput

VALUES = {
    "A": "one",
    "B": "two words",
    "E": "",
    "P": "/usr/lib/x.tar.gz",
    "S": "a*b?c",
    "이름": "값",
    "N": "*b",
    "1": "digit",
}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("$A", "one"),
        ("${A}", "one"),
        ("x$A/y", "xone/y"),
        ("${A}B", "oneB"),
        ("$AB", ""),
        ("$UNSET", ""),
        ("[$E]", "[]"),
        ("$이름 ${이름}", "값 값"),
        ("$1a", "digita"),
        ("$", "$"),
        ("$$", ""),
        ("a$ b", "a$ b"),
        ("$/x", "$/x"),
        (r"\$A", "$A"),
        (r"\${A}", "${A}"),
        (r"a\bc", "abc"),
        (r"\\", "\\"),
        ("end\\", "end"),
        ("'$A'", "$A"),
        (r"'\$A'", r"\$A"),
        ('"$A"', "one"),
        (r'"\$A \"q\" \x \\"', r'$A "q" \x ' + "\\"),
        ('"it\'s" \'say "x"\'', 'it\'s say "x"'),
        ("a'b'\"c\"", "abc"),
        ("''", ""),
        # defaults and alternatives, with and without the colon
        ("${U-w}${E-w}${A-w}", "wone"),
        ("${U:-w}${E:-w}${A:-w}", "wwone"),
        ("${U+w}|${E+w}|${A+w}", "|w|w"),
        ("${U:+w}|${E:+w}|${A:+w}", "||w"),
        ("${A?m}${E?m}${A:?m}", "oneone"),
        ("${U:-$A}", "one"),
        ("${U:-${V:-${A}}}", "one"),
        ("${U:-'a } b'}", "a } b"),
        (r"${U:-a\}b}", "a}b"),
        ("${U:-}", ""),
        # patterns
        ("${P#*/}", "usr/lib/x.tar.gz"),
        ("${P##*/}", "x.tar.gz"),
        ("${P%.*}", "/usr/lib/x.tar"),
        ("${P%%.*}", "/usr/lib/x"),
        ("${P#nothing}", "/usr/lib/x.tar.gz"),
        ("${P%/?.*}", "/usr/lib"),
        ("${P#}", "/usr/lib/x.tar.gz"),
        (r"${S#a\*}", "b?c"),
        (r"${S%\?c}", "a*b"),
        ("${S#a?}", "b?c"),
        ("${S%$N*}", "a*"),
        ("${S##$N*}", ""),
        ("${U#x}", ""),
        ("${P/usr/opt}", "/opt/lib/x.tar.gz"),
        ("${P//./-}", "/usr/lib/x-tar-gz"),
        (r"${P//\//_}", "_usr_lib_x.tar.gz"),
        ("${P/lib*/X}", "/usr/X"),
        ("${P/x.*./X}", "/usr/lib/Xgz"),
        ("${P/none/x}", "/usr/lib/x.tar.gz"),
        ("${P//l/}", "/usr/ib/x.tar.gz"),
        ("${A//?/-}", "---"),
        ("${A//*/-}", "-"),
        ("${A/o/$B}", "two wordsne"),
    ],
)
def test_one_word(text: str, result: str) -> None:
    assert expand(text, VALUES) == result


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b  c", ["a", "b", "c"]),
        ("$B", ["two", "words"]),
        ('"$B"', ["two words"]),
        ("x$B/y", ["xtwo", "words/y"]),
        ("'a b'c d", ["a bc", "d"]),
        (r"a\ b c", ["a b", "c"]),
        ("'' $E x", ["x"]),
        ("", []),
        ("\ta\u3000b ", ["a", "b"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert expand_words(text, VALUES) == words


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${", "bad substitution"),
        ("${}", "bad substitution"),
        ("${:x}", "bad substitution"),
        ("${{A}}", "bad substitution"),
        ("${A", "} is missing"),
        ("${A:-x", "} is missing"),
        ("${A#x", "} is missing"),
        ("${A/x}", "/ is missing"),
        ("${A/x/y", "} is missing"),
        ("${A=x}", "unknown modifier"),
        ("${A:x}", "unknown modifier"),
        ("${A^^}", "unknown modifier"),
        ("${A b}", "unknown modifier"),
        ("'a", "single quote"),
        ('"a', "double quote"),
        ("${U?}", "U: is unset"),
        ("${U:?say $A}", "U: say one"),
        ("${E:?}", "E: is empty"),
        (r"${A#\x}", "nothing to escape"),
        ("${A:-" * 200 + "}" * 200, "nested"),
    ],
)
def test_errors_have_a_hint(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(reason)) as caught:
        expand(text, {"A": "one", "E": ""})
    assert caught.value.hint


def test_the_escape_character_is_the_directives() -> None:
    assert expand("`$A \\$A", VALUES, "`") == "$A \\one"
    assert expand('"`"`$A" C:\\x', VALUES, "`") == '"$A C:\\x'


def test_a_heredoc_has_no_quotes() -> None:
    assert expand_heredoc("'$A' \"$A\"\n\\$A \\\\\n", VALUES) == "'one' \"one\"\n$A \\\n"


def test_what_was_used_is_told() -> None:
    found = expanded("$A ${U:-$E} '$B'", VALUES, Rules())
    assert found.used == {"A", "E"}
    assert found.unset == {"U"}


def test_nothing_grows_or_takes_without_bound() -> None:
    with pytest.raises(InvalidInput, match="over"):
        expand("$A$A", {"A": "x" * 600_000})
    with pytest.raises(InvalidInput, match="over"):
        expand("${A//x/" + "y" * 60_000 + "}", {"A": "x" * 100_000})
    long = {"A": "a" * 60_000}
    for form in ("%%", "##", "//"):
        stars = "*a" * 40
        tail = "/c" if form == "//" else ""
        assert expand(f"${{A{form}{stars}b{tail}}}", long) == long["A"]


PATTERN = st.text("ab*?", max_size=6)
VALUE = st.text("ab", max_size=8)


def reference(pattern: str, greedy: bool) -> str:
    parts = {"*": ".*" if greedy else ".*?", "?": "."}
    return "".join(parts.get(character, character) for character in pattern)


@given(PATTERN, VALUE)
def test_patterns_are_those_of_regular_expressions(pattern: str, value: str) -> None:
    parsed = ShellPattern.parse(pattern)
    for longest in (False, True):
        expected = re.sub(rf"\A{reference(pattern, longest)}", "", value, count=1)
        assert parsed.without_prefix(value, longest) == expected
        mirrored = re.sub(rf"\A{reference(pattern[::-1], longest)}", "", value[::-1], count=1)
        assert parsed.without_suffix(value, longest) == mirrored[::-1]
    once = re.sub(reference(pattern, True), "X", value, count=1)
    assert parsed.replace(value, "X", every=False, limit=1000) == once


@given(st.text(st.sampled_from("aA$'\"\\{}:-+?#%/* \u00e9"), max_size=25))
def test_any_text_expands_or_is_refused(text: str) -> None:
    try:
        found = expanded(text, {"A": "x y", "a": ""}, Rules())
    except InvalidInput as error:
        assert error.hint
    else:
        assert "".join(found.words).replace(" ", "") == re.sub(r"\s", "", found.text)


def put(text: str, values: dict[str, str]) -> ast.Instruction:
    return substitute(parse(f"FROM scratch\n{text}\n").instructions[-1], values)


def test_what_each_instruction_expands() -> None:
    values = {"V": "v w", "N": "80", "T": "cache"}
    env = put("ENV k$N=$V b='$V' c=\"$V\"", values)
    assert isinstance(env, ast.Env)
    assert env.pairs == (("k80", "v w"), ("b", "$V"), ("c", "v w"))
    label = put("LABEL a $V 'x'", values)
    assert isinstance(label, ast.Label)
    assert label.pairs == (("a", "v w x"),)
    arg = put("ARG a=$V b", values)
    assert isinstance(arg, ast.Arg)
    assert arg.pairs == (("a", "v w"), ("b", None))
    expose = put("EXPOSE $N $N-82/udp $UNSET", values)
    assert isinstance(expose, ast.Expose)
    assert expose.ports == ("80/tcp", "80/udp", "81/udp", "82/udp")
    volume = put('VOLUME ["/$V", "$N"]', values)
    assert isinstance(volume, ast.Volume)
    assert volume.paths == ("/v w", "80")
    for text, field in (
        ("WORKDIR /$V", "path"),
        ("USER /$V", "user"),
        ("STOPSIGNAL /$V", "signal"),
    ):
        assert getattr(put(text, values), field) == "/v w"
    base = substitute(parse("FROM --platform=$P $I:$N").instructions[0], {"I": "node", "N": "22"})
    assert isinstance(base, ast.From)
    assert (base.image, base.platform) == ("node:22", None)


def test_what_copy_add_and_run_expand() -> None:
    values = {"V": "v", "T": "cache"}
    copy = put("COPY --chown=$V --chmod=$V --exclude=$V $V a$V <<E <<'F' /$V\n$V\nE\n$V\nF", values)
    assert isinstance(copy, ast.Copy)
    assert (copy.chown, copy.chmod, copy.exclude) == ("v", "v", ("v",))
    assert (copy.sources, copy.destination) == (("v", "av"), "/v")
    assert [doc.text for doc in copy.heredocs] == ["v\n", "$V\n"]
    add = put("ADD --checksum=$V https://x/$V /", values)
    assert isinstance(add, ast.Add)
    assert (add.checksum, add.sources) == ("v", ("https://x/v",))
    run = put("RUN --mount=type=$T,target=/$V,id=$V echo $V", values)
    assert isinstance(run, ast.Run)
    assert (run.shell, run.mounts[0].type, run.mounts[0].target) == ("echo $V", "cache", "/v")
    for text in ("CMD echo $V", 'ENTRYPOINT ["$V"]', "ONBUILD ENV a=$V", "HEALTHCHECK CMD $V"):
        assert put(text, values) == put(text, {})


@pytest.mark.parametrize(
    "text",
    [
        'ENV A="${U:?must be set}"',
        "EXPOSE $U-x",
        "RUN --mount=type=$U,target=/x y",
        "WORKDIR ${",
        "LABEL a='b",
    ],
)
def test_an_error_of_expansion_has_its_line(text: str) -> None:
    node = parse(f"FROM a\n\n{text}\n").instructions[1]
    with pytest.raises(DockerfileError) as caught:
        substitute(node, {}, file="x/Dockerfile")
    assert (caught.value.line, caught.value.context["source"]) == (3, text)
    assert caught.value.context["file"] == "x/Dockerfile"
    assert caught.value.hint
