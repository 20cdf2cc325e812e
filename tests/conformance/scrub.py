"""What two daemons may legitimately say differently, taken out of their output.

Always: ids (numbered as they appear), times, addresses, the state's own folder, the runtime's name
in front of its messages, the number of spaces between columns. A case's own rules come on top:

    nowhere       an image that no registry has, in whatever words
    sort          lines in order            uniq          sorted, each once
    sizes         12.3MB is any size        numbers       every number is any number
    drop RE       lines that match go       keep RE       the others go (both before the rest)
    s/RE/TEXT/    replaced                  shape         JSON: its keys and their types
    more          (what the other daemon says over and above is allowed)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_ZONE = r"( ?Z|[+-]\d\d:\d\d| [+-]\d{4} [A-Z]{3,4})?"
_TIMES = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?" + _ZONE, "<time>"),
    (
        r"(Less than|About) an? (second|minute|hour)( ago)?|\d+ (second|minute|hour)s?( ago)?",
        "<ago>",
    ),
)
_PLAIN = (
    (r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", "<mac>"),
    (r"\b(?!127\.|0\.0\.0\.0)(\d{1,3}\.){3}\d{1,3}\b(?!\.)", "<ip>"),
    (r"0\.0\.0\.0:(3[2-9]|[45]\d|6[0-5])\d{3}\b", "0.0.0.0:<port>"),
    # The words of containerd's and runc's layers above what failed.
    (r"failed to create (task for container|shim task|shim): ", ""),
    (r"OCI runtime (create|exec) failed: (runc (create|run) failed|exec failed): ", ""),
    (r"unable to start container process: ", ""),
    (r": unknown(\.?)$", r"\1"),
    (r"/dev/pts/\d+", "/dev/pts/<n>"),
    (r"\x1b\[[0-9;?]*[A-Za-z]", ""),
    (r" {2,}", "  "),
    (r" +$", ""),
)
# What the CLI says about the classic builder, before it asks anybody.
_LEGACY = re.compile(r"DEPRECATED: The legacy builder .*\n(  .*\n)+\n")
_ID = re.compile(r"(?<![0-9a-zA-Z.-])[0-9a-f]{12}(?:[0-9a-f]{52})?(?![0-9a-zA-Z])")
# Without a network the mirror's 404 is followed by a try of the true Hub.
_NOWHERE = r"(Get \"https://registry-1|pull access denied|manifest for|manifest unknown).*"
_SIZE = re.compile(r"\b\d+(\.\d+)?(e[+-]\d+)? ?([kKMGT]i?)?B\b")


@dataclass(slots=True)
class Scrubber:
    """One a case: an id keeps its number through all its steps. `roots` are the state's folders."""

    roots: Sequence[str]
    ids: dict[str, str] = field(default_factory=dict)

    def clean(self, text: str, rules: Sequence[str]) -> str:
        for root in self.roots:
            text = text.replace(root, "<state>")
        text = _LEGACY.sub("", text.replace("\r\n", "\n"))
        lines = list(_shape(text)) if "shape" in rules else text.splitlines()
        # Lines nobody looks at take no number from the ids.
        early = [rule for rule in rules if rule.startswith(("drop ", "keep "))]
        for rule in early:
            lines = _apply(rule, lines)
        lines = [self._line(line) for line in lines]
        for rule in rules:
            if rule not in early:
                lines = _apply(rule, lines)
        return "\n".join(lines)

    def _line(self, line: str) -> str:
        for pattern, instead in _TIMES:
            line = re.sub(pattern, instead, line)
        line = _ID.sub(lambda found: self._id(found[0]), line)
        for pattern, instead in _PLAIN:
            line = re.sub(pattern, instead, line)
        return line

    def _id(self, text: str) -> str:
        return self.ids.setdefault(text[:12], f"<id{len(self.ids) + 1}>")


def _apply(rule: str, lines: list[str]) -> list[str]:
    name, _, argument = rule.partition(" ")
    match name:
        case "sort":
            return sorted(lines)
        case "uniq":
            return sorted(set(lines))
        case "sizes":
            return [_SIZE.sub("<size>", line) for line in lines]
        case "numbers":
            return [re.sub(r"\d+(\.\d+)?", "<n>", line) for line in lines]
        case "drop":
            return [line for line in lines if not re.search(argument, line)]
        case "keep":
            return [line for line in lines if re.search(argument, line)]
        case "nowhere":
            return [re.sub(_NOWHERE, "<nowhere>", line) for line in lines]
        case "shape" | "more":
            return lines
    if rule.startswith("s/") and rule.count("/") >= 3:
        _, pattern, instead, _ = re.split(r"(?<!\\)/", rule, maxsplit=3)
        text = re.sub(pattern.replace("\\/", "/"), instead, "\n".join(lines), flags=re.MULTILINE)
        return text.splitlines()
    raise ValueError(f"no such rule: {rule}")


def _shape(text: str) -> Iterator[str]:
    """A line for each key of JSON lines: its path, its value's type."""
    try:
        value = json.loads(text)
    except ValueError:
        yield from text.splitlines()
        return
    yield from sorted(set(_paths(value, "")))


def _paths(value: object, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield f"{path}: object"
        for key, inner in value.items():
            yield from _paths(inner, f"{path}.{key}")
    elif isinstance(value, list):
        yield f"{path}: list"
        for inner in value[:1]:
            yield from _paths(inner, f"{path}[]")
    else:
        kind = {str: "text", bool: "bool", int: "number", float: "number"}.get(type(value), "null")
        yield f"{path}: {kind}"
