"""Flags: `--name=value` before an instruction's arguments, checked against what it knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum

from engine.errors import InvalidInput


class Kind(Enum):
    TEXT = "text"
    MANY = "many"  # may be given more than once
    SWITCH = "switch"  # --name, --name=true, --name=false


@dataclass(frozen=True, slots=True)
class Flags:
    """What was given, by name."""

    texts: dict[str, str]
    lists: dict[str, tuple[str, ...]]
    switches: dict[str, bool]

    def text(self, name: str, default: str = "") -> str:
        return self.texts.get(name, default)

    def many(self, name: str) -> tuple[str, ...]:
        return self.lists.get(name, ())

    def switch(self, name: str) -> bool:
        return self.switches.get(name, False)


def read_flags(words: Sequence[str], keyword: str, known: dict[str, Kind]) -> Flags:
    """Raises InvalidInput: unknown (with what was meant), given twice, or without a value."""
    flags = Flags({}, {}, {})
    for word in words:
        name, equals, value = word[2:].partition("=")
        kind = known.get(name)
        if kind is None:
            raise InvalidInput(
                f"{keyword} has no flag --{name}",
                hint=did_you_mean(f"--{name}", [f"--{flag}" for flag in known])
                or _known(keyword, known),
            )
        if name in flags.texts or name in flags.switches:
            raise InvalidInput(f"--{name} is given twice", hint="keep one of them")
        if kind is Kind.SWITCH:
            if equals and value.lower() not in ("true", "false"):
                raise InvalidInput(
                    f"--{name} is neither true nor false: {value}",
                    hint=f"write --{name} alone, or leave it away",
                )
            flags.switches[name] = value.lower() != "false"
        elif not equals:
            raise InvalidInput(
                f"--{name} has no value", hint=f"write --{name}=value, without blanks"
            )
        elif kind is Kind.MANY:
            flags.lists[name] = (*flags.many(name), value)
        else:
            flags.texts[name] = value
    return flags


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint, or "" where nothing known comes near."""
    names = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f"did you mean {names[near[0]]}?" if near else ""


def _known(keyword: str, known: dict[str, Kind]) -> str:
    if not known:
        return f"{keyword} takes no flags"
    return f"{keyword} knows {', '.join(f'--{name}' for name in known)}"
