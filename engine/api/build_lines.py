"""A build's events in the words of moby's classic builder (builder/dockerfile): pure.

engine.build.report writes the events, one JSON object a line of the log; the CLI and docker-py
read what comes out here. Ids behind `--->` are the steps' cache keys: an image of its own has
only the last step. A step in the middle of ours that moby would run in a container is said to run
in one, by an id nobody can ask for.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.api.image_progress import PullLines

Line = dict[str, Any]
# These make no container in moby's builder either.
_WITHOUT_CONTAINER = ("FROM", "COPY", "ADD")
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"
ENDS = ("done", "failed", "cancelled")


@dataclass(slots=True)
class ClassicLines:
    """`tags` are familiar names; `remove` and `force_remove` say whether containers of steps are
    told to be removed, always or also where the step failed. Feed it each event in order."""

    tags: Sequence[str] = ()
    remove: bool = True
    force_remove: bool = False
    quiet: bool = False
    _before: list[str] = field(default_factory=list)
    _steps: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    _said: int = 0
    _container: str = ""
    _arrow: tuple[int, str] | None = None
    _pulls: dict[int, PullLines] = field(default_factory=dict)
    _unused: list[str] = field(default_factory=list)
    _held: list[Line] = field(default_factory=list)

    def feed(self, event: Mapping[str, Any]) -> list[Line]:
        """What the client is to read because of it. With `quiet` nothing until the end: then the
        image's id, or, of a build that failed, everything."""
        lines = list(self._lines(event))
        if not self.quiet:
            return lines
        if event["t"] == "done":
            return [_stream(f"{event['image']}\n")]
        self._held += lines
        if event["t"] in ENDS:
            lines, self._held = self._held, []
            return lines
        return []

    def _lines(self, event: Mapping[str, Any]) -> Iterator[Line]:
        kind = event["t"]
        if kind == "done":
            yield from self._done(str(event["image"]))
            return
        triggers = self._plan(event) if kind == "plan" else 0
        if self._arrow is not None:
            n, id = self._arrow
            self._arrow = None
            if triggers:
                yield _stream(f"# Executing {triggers} build trigger")
                yield from (_stream("s"),) if triggers > 1 else ()
                yield _stream("\n")
            elif not self._is_trigger(n) or not self._is_trigger(n + 1):
                yield _stream(f" ---> {id}\n")
        if kind == "step":
            yield from self._step(event)
        elif kind == "out":
            text = event["d"]
            yield _stream(text if event["s"] == 1 else f"{_RED}{text}{_PLAIN}")
        elif kind == "pull":
            layers = [layer for layer in event["layers"] if layer["digest"]]
            yield from self._pulls.setdefault(event["n"], PullLines()).next({"layers": layers})
        elif kind == "warn":
            if event.get("arg"):
                self._unused.append(str(event["arg"]))
            else:
                yield _stream(f"{_RED}{self._warning(event)}{_PLAIN}")
        elif kind == "again":
            self._said, self._container = 0, ""
            yield _stream("The worker was lost; the build begins anew.\n")
        elif kind == "failed":
            yield from self._removing(self.force_remove)
            yield _error(*_words(event["error"]))
        elif kind == "cancelled":
            yield _error("the build was cancelled")

    def _warning(self, event: Mapping[str, Any]) -> str:
        line, text = event["line"], event["text"]
        if "empty line inside a continuation" not in text:
            return f"[WARNING]: {text}\n"
        found = (s["text"] for s in self._steps.values() if s["line"] <= line <= s["end"])
        return (
            f"[WARNING]: Empty continuation line found in:\n    {next(found, '')}\n"
            "[WARNING]: Empty continuation lines will become errors in a future release.\n"
        )

    def _plan(self, event: Mapping[str, Any]) -> int:
        """How many triggers of a base's have come in since the last plan."""
        before = sum(bool(step.get("trigger")) for step in self._steps.values())
        self._before = list(event.get("before", ()))
        self._steps = {step["n"]: step for step in event["steps"]}
        return sum(bool(step.get("trigger")) for step in self._steps.values()) - before

    def _is_trigger(self, n: int) -> bool:
        return bool(self._steps.get(n, {}).get("trigger"))

    def _header(self, n: int) -> Iterator[Line]:
        """`Step 3/7 : …` of this step and of what stands before the first; triggers count not."""
        if n <= self._said:
            return
        if not self._said:
            for number, text in enumerate(self._before, 1):
                yield from self._title(number, text)
        self._said = n
        if not self._is_trigger(n):
            number = sum(not self._is_trigger(other) for other in self._steps if other <= n)
            yield from self._title(len(self._before) + number, self._steps[n]["text"])

    def _title(self, number: int, text: str) -> Iterator[Line]:
        total = len(self._before) + sum(not self._is_trigger(n) for n in self._steps)
        yield _stream(f"Step {number}/{total} : {text}")
        yield _stream("\n")

    def _step(self, event: Mapping[str, Any]) -> Iterator[Line]:
        n, state = event["n"], event["state"]
        if n not in self._steps:
            return
        yield from self._header(n)
        if state == "running":
            yield from self._running(n)
        elif state in ("cached", "built"):
            if state == "cached" and self._keyword(n) != "FROM":
                yield _stream(" ---> Using cache\n")
            elif state == "built":
                yield from self._running(n)
                yield from self._removing(self.remove)
            self._container = ""
            self._arrow = (n, str(event.get("id", "")))

    def _keyword(self, n: int) -> str:
        return str(self._steps[n]["text"]).partition(" ")[0].upper()

    def _running(self, n: int) -> Iterator[Line]:
        if not self._container and self._keyword(n) not in _WITHOUT_CONTAINER:
            self._container = secrets.token_hex(6)
            yield _stream(f" ---> Running in {self._container}\n")

    def _removing(self, said: bool) -> Iterator[Line]:
        if self._container and said:
            yield _stream(f"Removing intermediate container {self._container}\n")

    def _done(self, image: str) -> Iterator[Line]:
        id = image.removeprefix("sha256:")[:12]
        self._arrow = None
        yield _stream(f" ---> {id}\n")
        yield {"aux": {"ID": image}}
        if self._unused:
            names = " ".join(sorted(self._unused))
            yield _stream(f"[Warning] One or more build-args [{names}] were not consumed\n")
        yield _stream(f"Successfully built {id}\n")
        for tag in self.tags:
            yield _stream(f"Successfully tagged {tag}\n")


def _stream(text: str) -> Line:
    return {"stream": text}


def _error(message: str, code: int | None = None) -> Line:
    detail: Line = {"message": message} if code is None else {"code": code, "message": message}
    return {"errorDetail": detail, "error": message}


def _words(error: Mapping[str, Any]) -> tuple[str, int | None]:
    """moby's sentence where it has one; ours, with its line and what to do, elsewhere."""
    context = error.get("context") or {}
    message = str(error.get("message", "failed"))
    if error.get("id") == "step-failed" and "code" in context:
        command = context.get("command", "")
        code = int(context["code"])
        return f"The command '{command}' returned a non-zero code: {code}", code
    if error.get("id") == "build-context" and "absent" in context:
        keyword = str(context.get("source", "COPY")).lstrip().partition(" ")[0].upper()
        what = "file not found in build context or excluded by .dockerignore"
        message = f"{keyword} failed: {what}: stat {context['absent']}: file does not exist"
        return message, None
    if "line" in context:
        message = f"{context.get('file', 'Dockerfile')}:{context['line']}: {message}"
    hint = error.get("hint")
    return (f"{message} ({hint})" if hint else message), None
