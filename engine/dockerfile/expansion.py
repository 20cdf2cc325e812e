"""Variables and quotes in an instruction's words, as BuildKit's shell lexer reads them.

    $name ${name} ${name:-w} ${name-w} ${name:+w} ${name+w} ${name:?m} ${name?m}
    ${name#p} ${name##p} ${name%p} ${name%%p} ${name/p/t} ${name//p/t}

Single quotes keep everything, double quotes keep all but `$` and the escape character. An unset
name is the empty string. Which values are in scope, and which instructions expand at all, is left
to engine.dockerfile.substitution and engine.build.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from engine.dockerfile.directives import DEFAULT_ESCAPE
from engine.dockerfile.globs import ShellPattern
from engine.dockerfile.lines import SPACES
from engine.errors import InvalidInput

MAX_EXPANDED = 1 << 20
"""Characters one expansion may give: `ENV a=$a$a` thirty times must not fill the memory."""

_MAX_DEPTH = 100
_SPECIAL = "@*#?-$!"
_END = ""


@dataclass(frozen=True, slots=True)
class Expanded:
    """`text` as one string, `words` as a shell would part it, and the names it asked for."""

    text: str
    words: tuple[str, ...]
    used: frozenset[str]
    unset: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rules:
    """How to read: keep quotes, escapes or unset names as written; `quotes=False`: no quoting."""

    escape: str = DEFAULT_ESCAPE
    keep_quotes: bool = False
    keep_escapes: bool = False
    keep_unset: bool = False
    quotes: bool = True


def expand(text: str, values: Mapping[str, str], escape: str = DEFAULT_ESCAPE) -> str:
    """One word in, one out, blanks kept. Raises InvalidInput with a hint."""
    return expanded(text, values, Rules(escape)).text


def expand_words(text: str, values: Mapping[str, str], escape: str = DEFAULT_ESCAPE) -> list[str]:
    """Parted at blanks that are not quoted, after expansion. Raises InvalidInput with a hint."""
    return list(expanded(text, values, Rules(escape)).words)


def expand_heredoc(content: str, values: Mapping[str, str]) -> str:
    """A COPY's or ADD's heredoc: quotes mean nothing in it, and the escape is always `\\`."""
    return expanded(content, values, Rules(quotes=False)).text


def expanded(text: str, values: Mapping[str, str], rules: Rules) -> Expanded:
    """The whole answer. Raises InvalidInput with a hint."""
    return _Shell(text, values, rules).run()


class _Words:
    """Gathers characters into words; only unquoted blanks part them."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._word: list[str] = []

    def add(self, text: str) -> None:
        for character in text:
            if character in SPACES:
                self.end()
            else:
                self._word.append(character)

    def add_quoted(self, text: str) -> None:
        self._word.append(text)

    def end(self) -> None:
        if word := "".join(self._word):
            self.words.append(word)
        self._word.clear()


class _Shell:
    def __init__(self, text: str, values: Mapping[str, str], rules: Rules) -> None:
        self._text = text
        self._values = values
        self._rules = rules
        self._position = 0
        self._depth = 0
        self._size = 0
        self._used: set[str] = set()
        self._unset: set[str] = set()

    def run(self) -> Expanded:
        text, words = self._until(_END, self._rules.keep_escapes)
        return Expanded(text, tuple(words), frozenset(self._used), frozenset(self._unset))

    def _fail(self, what: str, hint: str) -> NoReturn:
        shown = self._text if len(self._text) <= 200 else f"{self._text[:200]}…"
        raise InvalidInput(f"cannot expand {shown!r}: {what}", hint=hint)

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _next(self) -> str:
        character = self._peek()
        self._position += 1
        return character

    def _until(self, stop: str, keep_escapes: bool) -> tuple[str, list[str]]:
        """Text and words up to `stop`, which is passed over; `_END` is the end of the text."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._fail(f"nested more than {_MAX_DEPTH} deep", "use fewer ${…} inside each other")
        out: list[str] = []
        words = _Words()
        escape = self._rules.escape
        while character := self._peek():
            if character == stop:
                self._position += 1
                break
            if character == "$":
                value = self._dollar()
                words.add(value)
            elif self._rules.quotes and character in "'\"":
                value = self._single() if character == "'" else self._double(keep_escapes)
                words.add_quoted(value)
            elif character == escape:
                self._position += 1
                value = (escape if keep_escapes else "") + self._next()
                words.add_quoted(value)
            else:
                self._position += 1
                value = character
                words.add(value)
            out.append(self._measured(value))
        else:
            if stop:
                self._fail(f"{stop} is missing", f"close ${{…}} with {stop}")
        self._depth -= 1
        words.end()
        return "".join(out), words.words

    def _measured(self, value: str) -> str:
        self._size += len(value)
        if self._size > MAX_EXPANDED:
            self._fail(f"over {MAX_EXPANDED} characters", "a variable grows by its own value")
        return value

    def _single(self) -> str:
        end = self._text.find("'", self._position + 1)
        if end < 0:
            self._fail("a single quote is not closed", f"close it, or write {self._rules.escape}'")
        quoted = self._text[self._position + 1 : end]
        self._position = end + 1
        return f"'{quoted}'" if self._rules.keep_quotes else quoted

    def _double(self, keep_escapes: bool) -> str:
        self._position += 1
        escape = self._rules.escape
        out: list[str] = []
        while (character := self._peek()) != '"':
            if not character:
                self._fail("a double quote is not closed", f'close it, or write {escape}"')
            if character == "$":
                out.append(self._dollar())
                continue
            self._position += 1
            if character == escape:
                if keep_escapes:
                    out.append(escape)
                # Before any other character the escape stands for itself.
                if self._peek() in ('"', "$", escape):
                    character = self._next()
            out.append(character)
        self._position += 1
        text = "".join(out)
        return f'"{text}"' if self._rules.keep_quotes else text

    def _dollar(self) -> str:
        self._position += 1
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._get(name)
            return f"${name}" if value is None and self._rules.keep_unset else value or ""
        self._position += 1
        if self._peek() in ("", "{", "}", ":"):
            self._fail("a bad substitution", "write it like ${NAME} or ${NAME:-default}")
        start = self._position
        name = self._name()
        operator = self._next()
        if operator == "}":
            value = self._get(name)
            return f"${{{name}}}" if value is None and self._rules.keep_unset else value or ""
        if operator == "/":
            result = self._replaced(name)
        else:
            empty_is_unset = operator == ":"
            if empty_is_unset:
                operator = self._next()
            result = self._modified(name, operator, empty_is_unset)
        if self._rules.keep_unset and name in self._unset:
            return "${" + self._text[start : self._position]
        return result

    def _modified(self, name: str, operator: str, empty_is_unset: bool) -> str:
        if not operator or operator not in "-+?#%":
            self._fail(
                f"an unknown modifier: {operator}" if operator else "} is missing",
                "modifiers are :- - :+ + :? ? # ## % %% / //",
            )
        word, _ = self._until("}", keep_escapes=operator in "#%")
        value = self._get(name)
        if value is None and self._rules.keep_unset:
            return ""  # the caller writes it as it stood
        if operator in "#%":
            longest = word.startswith(operator)
            pattern = ShellPattern.parse(word[1:] if longest else word, self._rules.escape)
            if operator == "#":
                return pattern.without_prefix(value or "", longest)
            return pattern.without_suffix(value or "", longest)
        missing = value is None or (empty_is_unset and not value)
        if operator == "-":
            return word if missing else value or ""
        if operator == "+":
            return "" if missing else word
        if missing:
            reason = word or ("is unset" if value is None else "is empty")
            self._fail(f"{name}: {reason}", f"set {name} with ARG, ENV or a build argument")
        return value or ""

    def _replaced(self, name: str) -> str:
        every = self._peek() == "/"
        if every:
            self._position += 1
        pattern, _ = self._until("/", keep_escapes=True)
        text, _ = self._until("}", keep_escapes=True)
        value = self._get(name)
        if not value and self._rules.keep_unset:
            return ""
        found = ShellPattern.parse(pattern, self._rules.escape)
        return found.replace(value or "", self._measured(text), every, limit=MAX_EXPANDED)

    def _name(self) -> str:
        """Letters, digits and _; or digits alone; or one of the shell's special characters."""
        start = self._position
        if self._peek().isdecimal():
            while self._peek().isdecimal():
                self._position += 1
        elif self._peek() and self._peek() in _SPECIAL:
            self._position += 1
        else:
            while self._peek().isalpha() or self._peek().isdecimal() or self._peek() == "_":
                self._position += 1
        return self._text[start : self._position]

    def _get(self, name: str) -> str | None:
        value = self._values.get(name)
        (self._unset if value is None else self._used).add(name)
        return value
