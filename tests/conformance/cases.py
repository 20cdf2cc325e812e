"""The file of cases: what it says, read into values. Runs nothing.

    === title, unique                       a case; `=== title [alone]` runs with no other beside it
    + Dockerfile                            a file of the case's own folder, its lines below
    | FROM alpine
    ! docker create --name @T-a alpine      must succeed; what it says is not compared
    $ docker start -i @T-a                  compared: what it prints, how it exits
    < hello                                 a line of its stdin
    ~ sort                                  what is done to its output before it is compared
    $ docker run -it --rm alpine sh         with `>` lines it runs on a terminal, 24 by 80
    > wait / #
    > send exit 3\\r

Commands are lines of sh. In all of it `@T` is a word of the case's own (names begin with it), `@P1`
and `@P2` are free ports, `@REG` is the registry's address, `@IN` what goes before a command that
asks a published port. A `#` in the first column is a comment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CASES = Path(__file__).with_name("cases.txt")
DIFFERENCES = Path(__file__).with_name("differences.txt")


@dataclass(slots=True)
class Step:
    """`typed` holds ("wait" | "send", text) pairs; empty without a terminal."""

    command: str
    compared: bool
    stdin: str = ""
    rules: tuple[str, ...] = ()
    typed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    word: str
    title: str
    alone: bool
    files: dict[str, str]
    steps: list[Step]

    def __str__(self) -> str:
        return self.title


def read_cases(path: Path = CASES) -> list[Case]:
    """In the file's order; raises ValueError with the line's number."""
    cases: list[Case] = []
    name = ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            if line.startswith("=== "):
                cases.append(_case(line[4:], len(cases), [case.title for case in cases]))
            elif line.startswith("+ "):
                name = line[2:]
                cases[-1].files[name] = ""
            elif line.startswith("|"):
                cases[-1].files[name] += f"{line[2:]}\n"
            elif line and not line.startswith("#"):
                _step(cases[-1].steps, line[0], line[2:])
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(f"{path.name}:{number}: {line}: {error}") from error
    return cases


def _case(heading: str, count: int, titles: Sequence[str]) -> Case:
    title, alone = re.subn(r" \[alone\]$", "", heading)
    if title in titles:
        raise ValueError("another case has this title")
    return Case(f"t{count:03}", title, bool(alone), {}, [])


def _step(steps: list[Step], mark: str, text: str) -> None:
    match mark:
        case "$" | "!":
            steps.append(Step(text, mark == "$"))
        case "<":
            steps[-1].stdin += f"{text}\n"
        case "~":
            steps[-1].rules += (text,)
        case ">":
            verb, _, typed = text.partition(" ")
            if verb not in ("wait", "send"):
                raise ValueError("wait or send is what a terminal knows")
            plain = typed.encode().decode("unicode_escape")
            steps[-1].typed += ((verb, plain),)
        case _:
            raise ValueError("no such mark")


def read_differences(path: Path = DIFFERENCES) -> dict[str, str]:
    """Title of a case that is known to differ: why."""
    found = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            title, mark, reason = line.partition(" :: ")
            if not mark or not reason:
                raise ValueError(f"{path.name}: no reason in {line!r}")
            found[title] = reason
    return found
