"""Parts one statement: keyword, flags, and the rest as words, pairs or a JSON list.

Quotes stay in words and pairs, for expansion takes them away later; flags lose theirs here. What
an instruction makes of its parts is left to engine.dockerfile.arguments.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

from engine.dockerfile.lines import SPACES
from engine.errors import InvalidInput

_BLANKS = re.compile(r"[\t\v\f\r ]+")
_SPACES = re.compile(f"[{SPACES}]+")


def split_command(text: str) -> tuple[str, tuple[str, ...], str]:
    """`RUN --mount=x  cmd y` -> ("RUN", ("--mount=x",), "cmd y"); the keyword as written."""
    keyword, *rest = _BLANKS.split(text.strip(SPACES), maxsplit=1)
    flags, arguments = _split_flags(rest[0]) if rest else ([], "")
    return keyword, tuple(flags), arguments.strip(SPACES)


def _split_flags(text: str) -> tuple[list[str], str]:
    """Leading words that begin with `--`; a bare `--` ends them. Here `\\` always escapes."""
    flags: list[str] = []
    position = 0
    while True:
        while position < len(text) and text[position] in SPACES:
            position += 1
        if not text.startswith("--", position):
            return flags, text[position:]
        word: list[str] = []
        quote = ""
        while position < len(text) and (quote or text[position] not in SPACES):
            character = text[position]
            position += 1
            if character == quote:
                quote = ""
            elif not quote and character in "'\"":
                quote = character
            elif character == "\\":
                word.append(text[position : position + 1])
                position += 1
            else:
                word.append(character)
        flag = "".join(word)
        if flag == "--":
            return flags, text[position:]
        flags.append(flag)


def split_blanks(text: str) -> tuple[str, ...]:
    """Parted at blanks, quotes meaning nothing."""
    return tuple(_BLANKS.split(text)) if text else ()


def split_first(text: str) -> tuple[str, str]:
    """The first word, and what follows it after blanks of any kind."""
    first, *rest = _SPACES.split(text, maxsplit=1)
    return first, rest[0] if rest else ""


def split_words(text: str, escape: str) -> tuple[str, ...]:
    """Parted at blanks outside quotes; quotes and escapes stay in the words."""
    words: list[str] = []
    word: list[str] = []
    quote = ""
    characters = iter(text)
    for character in characters:
        if not quote and character in SPACES:
            if word:
                words.append("".join(word))
                word.clear()
            continue
        if character == escape and quote != "'":
            following = next(characters, "")
            if following:
                word += (character, following)
            continue
        word.append(character)
        if character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
    if word:
        words.append("".join(word))
    return tuple(words)


def split_pairs(text: str, keyword: str, escape: str) -> tuple[tuple[str, str], ...]:
    """`a=1 b="2 3"`, or the old `a the rest`. Raises InvalidInput with a hint."""
    words = split_words(text, escape)
    if not words:
        raise InvalidInput(f"{keyword} has no argument", hint=f"write it like {keyword} NAME=value")
    if "=" not in words[0]:
        name, *value = _BLANKS.split(text, maxsplit=1)
        if not value:
            raise InvalidInput(
                f"{keyword} {name} has no value", hint=f"write it like {keyword} {name}=value"
            )
        return ((name, value[0]),)
    pairs: list[tuple[str, str]] = []
    for word in words:
        name, equals, value_text = word.partition("=")
        if not equals:
            raise InvalidInput(
                f"{keyword} has a word without =: {word}",
                hint=f'quote a value that has blanks: {pairs[-1][0]}="… {word}"'
                if pairs
                else "write NAME=value",
            )
        if not name:
            raise InvalidInput(f"{keyword} has a value without a name: {word}", hint="name it")
        pairs.append((name, value_text))
    return tuple(pairs)


def json_list(text: str) -> tuple[str, ...] | None:
    """The exec form's words; None where the text is no JSON list and so is a shell's.

    Raises InvalidInput for a list that holds anything but strings.
    """
    if not text.startswith("["):
        return None
    try:
        values = json.loads(text, parse_constant=_not_json)
        # Half of a surrogate pair is no text that could be run or stored.
        json.dumps(values, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(value, str) for value in values):
        raise InvalidInput(
            "the list holds something that is no string",
            hint='put every element in double quotes, like ["node", "80"]',
        )
    return tuple(values)


def _not_json(name: str) -> NoReturn:
    raise ValueError(name)
