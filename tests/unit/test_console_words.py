"""Words: every string of templates, Python and JavaScript has its Korean, and no page has words
of its own beside them; errors become sentences; style and script files stay small and strict."""

from __future__ import annotations

import ast
import gettext
import re
from pathlib import Path

import pytest
from django.utils import translation
from django.utils.translation.template import templatize

from console.messages import explain, sentence_of
from engine.errors import (
    DockerfileError,
    EngineError,
    InvalidInput,
    NameTaken,
    PortTaken,
    QuaysideError,
    RegistryNotFound,
    RegistryUnauthorized,
    RegistryUnavailable,
    StepFailed,
    UserError,
)

ROOT = Path(__file__).resolve().parents[2]
MESSAGES = ROOT / "console" / "locale" / "ko" / "LC_MESSAGES"
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
SCRIPTS = sorted((ROOT / "static" / "js").glob("*.js"))
PLACEHOLDER = re.compile(r"%\(\w+\)s|%s")
CALLS = {"gettext", "gettext_lazy", "_", "ngettext", "pgettext", "pgettext_lazy"}


def python_strings() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "console").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            words = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if node.func.id in CALLS and words and isinstance(words[0], str):
                found.add(str(words[1] if node.func.id.startswith("pgettext") else words[0]))
    return found


def template_strings() -> set[str]:
    found: set[str] = set()
    pattern = re.compile(r"\b(?:_|gettext|ngettext)\(u?('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")")
    for path in TEMPLATES:
        for literal in pattern.findall(templatize(path.read_text())):
            found.add(ast.literal_eval(literal))
    return found


def script_strings() -> set[str]:
    found: set[str] = set()
    pattern = re.compile(r"\bn?gettext\(\s*(\"(?:[^\"\\]|\\.)*\")")
    for path in SCRIPTS:
        found |= {ast.literal_eval(text) for text in pattern.findall(path.read_text())}
    return found


def catalogue(domain: str) -> dict[str, str]:
    """{text: Korean} of what browsers and Django really read, the compiled file."""
    with (MESSAGES / f"{domain}.mo").open("rb") as file:
        compiled: dict[object, str] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    found = {}
    for key, text in compiled.items():
        name = key[0] if isinstance(key, tuple) else key
        found[str(name).rpartition("\x04")[2]] = text
    return found


@pytest.mark.parametrize(
    ("domain", "strings"),
    [
        ("django", python_strings() | template_strings()),
        ("djangojs", script_strings()),
    ],
)
def test_every_string_has_its_korean(domain: str, strings: set[str]) -> None:
    assert len(strings) > 40
    korean = catalogue(domain)
    assert sorted(text for text in strings if not korean.get(text)) == []
    for text in strings:
        wanted, given = (sorted(set(PLACEHOLDER.findall(t))) for t in (text, korean[text]))
        assert set(given) <= set(wanted) | {"%(n)s"}, (text, korean[text])


@pytest.mark.parametrize("domain", ["django", "djangojs"])
def test_the_compiled_catalogue_is_the_written_one(domain: str) -> None:
    text = (MESSAGES / f"{domain}.po").read_text()
    assert "fuzzy" not in text
    written = re.findall(r'^msgstr(?:\[0\])? "(.+)"$', text, re.MULTILINE)
    korean = set(catalogue(domain).values())
    missing = [t for t in written if t.replace('\\"', '"').replace("\\n", "\n") not in korean]
    assert missing == []


def test_no_particle_follows_a_variable() -> None:
    """이/가, 을/를, 은/는, 와/과, 으로 depend on a word nobody knows yet."""
    particle = re.compile(r"%\(\w+\)s(?:이|가|을|를|은|는|와|과|로|으로)(?=[\s.,]|$)")
    for domain in ("django", "djangojs"):
        bad = [text for text in catalogue(domain).values() if particle.search(text)]
        assert bad == [], domain


BARE = {
    "Quayside", "Dockerfile", "English", "한국어", "docker", "run", "no-cache", "rm", "t", "i",
    "j", "k", "x", "l", "s", "Enter", "tcp", "udp", "d",
}  # fmt: skip


def test_no_template_has_words_of_its_own() -> None:
    for path in TEMPLATES:
        if path.name == "500.html":  # shown when nothing works any more, translations included
            continue
        text = re.sub(r"{%\s*comment.*?endcomment\s*%}|{#.*?#}", " ", path.read_text(), flags=re.S)
        block = r"{%\s*blocktranslate.*?{%\s*endblocktranslate\s*%}"
        text = re.sub(block, " ", text, flags=re.S)
        text = re.sub(r"{% block page_class %}.*?{% endblock %}", " ", text)
        text = re.sub(r"{%.*?%}|{{.*?}}", " ", text, flags=re.S)
        for attribute in re.findall(r'(?:aria-label|placeholder|title|alt)="([^"]*)"', text):
            assert set(re.findall(r"[^\W\d_]+", attribute)) <= BARE, (path.name, attribute)
        shown = re.sub(r"<[^>]*>|&\w+;", " ", text)
        assert set(re.findall(r"[^\W\d_][\w-]*[^\W_]|[^\W\d_]", shown)) <= BARE, path.name


def test_templates_have_no_inline_style_or_handler() -> None:
    for path in TEMPLATES:
        text = path.read_text()
        assert not re.search(r"\s(style|on[a-z]+)=[\"']", text), path.name
        assert "hx-on" not in text and "javascript:" not in text, path.name


def test_styles_and_scripts_stay_small() -> None:
    assert (ROOT / "static" / "css" / "app.css").stat().st_size <= 30 * 1024
    for path in SCRIPTS:
        text = path.read_text()
        assert "eval(" not in text and "new Function" not in text, path.name
        assert not re.search(r"""setAttribute\(["']style""", text), path.name


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NameTaken("x", name="web"), "The name “web” is taken."),
        (
            PortTaken("x", address="0.0.0.0", port=3000, protocol="tcp"),
            "Port 3000/tcp on 0.0.0.0 is taken by another program.",
        ),
        (StepFailed("x", code=127), "The command ended with code 127."),
        (InvalidInput("not a container name: a b"), "“a b” cannot be a container's name."),
    ],
)
def test_errors_become_sentences(error: QuaysideError, text: str) -> None:
    assert explain(error).text == text
    assert explain(error.as_dict()) == explain(error)


def test_korean_errors_are_korean() -> None:
    with translation.override("ko"):
        assert "이미 쓰고 있는 이름" in explain(NameTaken("x", name="web")).text


def test_an_error_without_a_sentence_is_shown_in_its_own_words() -> None:
    found = explain(UserError("the moon is full", hint="wait"))
    assert (found.text, found.hint) == ("The moon is full.", "Wait.")
    with translation.override("ko"):
        korean = explain(UserError("the moon is full", hint="wait"))
    assert korean.text and korean.detail == "the moon is full: wait"
    assert "the moon is full" in sentence_of(EngineError("the moon is full"))
    assert explain(NameTaken("the name is taken")).text == "The name is taken."


def test_a_guess_of_the_engine_is_passed_on() -> None:
    error = DockerfileError("unknown instruction: RUNN", line=1, hint="did you mean RUN?")
    assert explain(error).hint == "Did you mean RUN?"
    with translation.override("ko"):
        assert "RUN" in explain(error).hint and "mean" not in explain(error).hint


def test_a_dockerfiles_error_points_at_its_line() -> None:
    found = explain(DockerfileError("unknown instruction", line=3, end_line=4, source="RUNN x"))
    assert (found.line, found.end_line, found.source) == (3, 4, "RUNN x")


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (RegistryNotFound("hub.test has no a/b:1"), "hub.test: 없는 이미지 (a/b:1)"),
        (RegistryUnavailable("hub.test cannot be reached: refused"), "연결할 수 없습니다: refused"),
        (
            RegistryUnauthorized('hub.test does not accept the sign-in for a/b:1: "denied"'),
            'hub.test: 로그인이 거부되었습니다 (a/b:1): "denied"',
        ),
        (RegistryUnavailable("what nobody has foreseen"), "what nobody has foreseen"),
    ],
)
def test_what_a_registry_answered_is_told_in_korean(error: QuaysideError, detail: str) -> None:
    with translation.override("ko"):
        assert explain(error).detail.endswith(detail)
