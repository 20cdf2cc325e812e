"""Cache keys, what is remembered under them, and why a step was not found: pure.

Keys chain as Docker's do: each is the digest of its parent's key and its own operation, so a
changed step gives every later one another key, whatever it produced. Times are in none, nor are
the values of the predefined proxy arguments. Leaves storing entries to a `CacheStore`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from engine.oci.digest import Digest
from engine.oci.image import Descriptor

# Part of every key: raised whenever the same operation would give another layer than before.
_VERSION = 1
MAX_FILES = 10

Why = Literal["first", "instruction", "files", "args", "parent", "base", "no-cache"]


def _key(kind: str, *operation: object) -> str:
    data = json.dumps([_VERSION, kind, *operation], sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(data.encode()).hexdigest()}"


def base_key(config: str | None, epoch: int | None = None) -> str:
    """FROM an image: by its config's digest; None is scratch. `epoch` (SOURCE_DATE_EPOCH) changes
    the times of every file after it."""
    return _key("from", config, epoch)


def metadata_key(parent: str, keyword: str, value: object) -> str:
    """ENV, LABEL, WORKDIR …: by their value after expansion."""
    return _key("metadata", parent, keyword, value)


def run_key(
    parent: str, argv: Sequence[str], args: Mapping[str, str], extra: Mapping[str, object]
) -> str:
    """RUN: by what is executed and the build arguments in scope. What ENV, USER, WORKDIR and
    SHELL say is in the parent's key."""
    return _key("run", parent, list(argv), dict(args), dict(extra))


def copy_key(
    parent: str,
    keyword: str,
    destination: str,
    sources: Sequence[tuple[str, str]],
    extra: Mapping[str, object],
) -> str:
    """COPY and ADD: `sources` are (name at the destination, content digest) in their order.

    `--from` uses it too: a rebuilt stage with the same output still hits.
    """
    return _key("copy", parent, keyword, destination, [list(pair) for pair in sources], dict(extra))


def copy_definition_key(
    parent: str,
    keyword: str,
    destination: str,
    origin: str,
    patterns: Sequence[str],
    extra: Mapping[str, object],
) -> str:
    """`--from` before anything is read: by the key of the stage or the digest of the image, whose
    content it fixes."""
    return _key("copy-from", parent, keyword, destination, origin, list(patterns), dict(extra))


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's blob and its diff_id."""

    descriptor: Descriptor
    diff_id: Digest

    def to_json(self) -> dict[str, Any]:
        return {"descriptor": self.descriptor.to_dict(), "diff_id": str(self.diff_id)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layer:
        return cls(Descriptor.from_json(data["descriptor"]), Digest(data["diff_id"]))


@dataclass(frozen=True, slots=True)
class StepTrace:
    """What a step was when it last stood at its place, to say later what changed.

    `files` is the content digest of all sources together, under which their listing is kept."""

    key: str
    parent: str
    operation: str
    args: Mapping[str, str] = field(default_factory=dict)
    files: str = ""
    base: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "parent": self.parent,
            "operation": self.operation,
            "args": dict(self.args),
            "files": self.files,
            "base": self.base,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StepTrace:
        return cls(
            data["key"],
            data["parent"],
            data["operation"],
            data["args"],
            data["files"],
            data["base"],
        )


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """Either one step's result under its `key` (`position` empty), or, under a key of its own,
    the `trace` of the last build at `position`: {"STAGE:INDEX": StepTrace}.

    `layer` None: the step made none. `chain` names the snapshot after the step (None: scratch).
    `created` is RFC 3339, `seconds` what building it took, `files` as in StepTrace. `alias` makes
    the entry a mere pointer: the key of the content that this definition stands for."""

    key: str
    position: str = ""
    layer: Layer | None = None
    chain: str | None = None
    created: str = ""
    seconds: float = 0.0
    files: str = ""
    alias: str = ""
    trace: Mapping[str, StepTrace] = field(default_factory=dict)

    @classmethod
    def of_trace(cls, position: str, trace: Mapping[str, StepTrace]) -> CacheEntry:
        return cls(key=_key("trace", position), position=position, trace=trace)

    def to_json(self) -> dict[str, Any]:
        """JSON-safe, for a row or a file."""
        return {
            "key": self.key,
            "position": self.position,
            "layer": self.layer.to_json() if self.layer else None,
            "chain": self.chain,
            "created": self.created,
            "seconds": self.seconds,
            "files": self.files,
            "alias": self.alias,
            "trace": {place: step.to_json() for place, step in self.trace.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CacheEntry:
        """Raises KeyError, TypeError or QuaysideError on another shape."""
        return cls(
            key=data["key"],
            position=data["position"],
            layer=Layer.from_json(data["layer"]) if data["layer"] else None,
            chain=data["chain"],
            created=data["created"],
            seconds=data["seconds"],
            files=data["files"],
            alias=data["alias"],
            trace={place: StepTrace.from_json(step) for place, step in data["trace"].items()},
        )


class CacheStore(Protocol):
    """One namespace's memory. `put` replaces what has the same key; `last` finds the entry put
    latest with this position; `expect` says which keys are likely to be asked for, so that one
    look can find them all. Entries may vanish at any time."""

    def expect(self, keys: Collection[str]) -> None: ...

    def get(self, key: str) -> CacheEntry | None: ...

    def put(self, entry: CacheEntry) -> None: ...

    def last(self, position: str) -> CacheEntry | None: ...


@dataclass(frozen=True, slots=True)
class FileChange:
    path: str
    change: Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a step was built. `files` are at most ten."""

    why: Why
    detail: str = ""
    files: tuple[FileChange, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "why": self.why,
            "detail": self.detail,
            "files": [{"path": file.path, "change": file.change} for file in self.files],
        }


def why_missed(
    step: StepTrace,
    last: StepTrace | None,
    *,
    no_cache: bool,
    first_miss: int | None,
    changed: Sequence[FileChange],
) -> Reason:
    """The reason of a miss. `last` stood at the same place in the build before; `first_miss` is
    the number of the step above that broke the chain; `changed` what differs in the files."""
    if no_cache:
        return Reason("no-cache")
    if first_miss is not None:
        return Reason("parent", f"step {first_miss} was built anew")
    if last is None:
        return Reason("first")
    if step.operation != last.operation:
        return Reason("instruction", f"was: {last.operation}")
    if step.base != last.base:
        return Reason("base", f"the base image changed: {step.base[7:19]}, was {last.base[7:19]}")
    if step.parent != last.parent:
        return Reason("parent", "a step above changed")
    if step.files != last.files:
        return Reason("files", _files_changed(changed), tuple(changed[:MAX_FILES]))
    if step.args != last.args:
        return Reason("args", _args_changed(step.args, last.args))
    return Reason("first", "its layer is no longer kept")


def compare_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[FileChange]:
    """What differs between two listings ({path: line}), sorted by path; folders whose only
    change lies below them are not mentioned, as they have not changed themselves."""
    changes = [
        FileChange(path, "changed" if path in before else "added")
        for path, line in now.items()
        if before.get(path) != line
    ]
    changes += [FileChange(path, "removed") for path in before if path not in now]
    changes.sort(key=lambda change: change.path)
    # Names that are not UTF-8 are shown, and stored, with a mark in place of what is not.
    return [replace(change, path=_shown(change.path)) for change in changes]


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _args_changed(now: Mapping[str, str], before: Mapping[str, str]) -> str:
    names = sorted(name for name in {*now, *before} if now.get(name) != before.get(name))
    return f"changed: {', '.join(names)}"


def _files_changed(changed: Sequence[FileChange]) -> str:
    if not changed:
        return "the files changed"
    words = {"added": "was added", "removed": "was removed", "changed": "changed"}
    text = f"{changed[0].path} {words[changed[0].change]}"
    return text if len(changed) == 1 else f"{text}, and {len(changed) - 1} more"
