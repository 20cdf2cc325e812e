"""The build's events as the log and the browser have them: plan, step, out, pull, warn.

Turns bytes into text over chunk borders, times the steps, and holds back what comes too often.
Safe to call from several threads: a pull reports from its own. Leaves the last event (done,
failed, cancelled) to the caller of the build, who has a row to write before it.
"""

from __future__ import annotations

import codecs
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from engine.build.cache import Reason
from engine.build.plan import Plan, Step
from engine.build.ports import BuildLog, LayerProgress, StepResult, StepState

_PULL_SECONDS = 0.25
OUTPUT_LIMIT = 16 * 1024 * 1024
"""Bytes of output kept of one step; more of it says nothing and fills the disk."""


class Reporter:
    """Writes one build's events; the caller drives it step by step."""

    def __init__(self, log: BuildLog) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._started: dict[int, float] = {}
        self._steps: dict[int, Step] = {}
        self._results: dict[int, StepResult] = {}

    @property
    def results(self) -> tuple[StepResult, ...]:
        return tuple(self._results[n] for n in sorted(self._results))

    def plan(self, plan: Plan) -> None:
        self._steps = {step.n: step for step in plan.steps}
        self._event(plan.to_event())

    def warn(self, text: str, line: int = 0, end_line: int = 0, arg: str = "") -> None:
        """Line 0: about no line in particular. `arg` is a build argument nobody asked for."""
        event: dict[str, Any] = {"t": "warn", "text": text, "line": line, "end": end_line}
        self._event({**event, "arg": arg} if arg else event)

    def begin(self, step: Step) -> None:
        """The step's clock starts; nothing is said yet, for it may be in the cache."""
        self._started[step.n] = time.monotonic()

    def running(self, step: Step, reason: Reason | None) -> None:
        self._state(step, "running", reason, 0.0)

    def ended(
        self,
        step: Step,
        state: Literal["cached", "built", "failed", "cancelled"],
        reason: Reason | None = None,
        *,
        id: str = "",
    ) -> float:
        """The step's seconds since `begin`. `id` (12 hex digits) names what it came to."""
        now = time.monotonic()
        seconds = now - self._started.get(step.n, now)
        self._state(step, state, reason, seconds, id)
        self._results[step.n] = StepResult(
            n=step.n,
            text=step.instruction.text,
            line=step.instruction.line,
            end_line=step.instruction.end_line,
            state=state,
            reason=reason.to_json() if reason else None,
            seconds=0.0 if state == "cached" else seconds,
        )
        return seconds

    def output(self, step: Step) -> Output:
        return Output(step.n, self._event)

    def pull(self, step: Step) -> Callable[[LayerProgress], None]:
        """For a pull to call with each layer's progress: at most four events a second."""
        layers: dict[str, dict[str, Any]] = {}
        last = 0.0

        def progress(layer: LayerProgress) -> None:
            nonlocal last
            with self._lock:
                known = layers.get(layer.digest)
                layers[layer.digest] = {
                    "digest": layer.digest,
                    "current": layer.current,
                    "total": layer.total,
                    "kind": layer.kind,
                }
                now = time.monotonic()
                # Ends are always told, or a bar would stay at 97 % for ever.
                ended = layer.kind == "done" and (known is None or known["kind"] != "done")
                all_done = all(entry["kind"] == "done" for entry in layers.values())
                if now - last < _PULL_SECONDS and not (ended and all_done):
                    return
                last = now
                self._log.event({"t": "pull", "n": step.n, "layers": list(layers.values())})

        return progress

    def _state(
        self, step: Step, state: StepState, reason: Reason | None, seconds: float, id: str = ""
    ) -> None:
        event: dict[str, Any] = {
            "t": "step",
            "n": step.n,
            "state": state,
            "ms": round(seconds * 1000),
        }
        if id:
            event["id"] = id
        if reason is not None:
            event["reason"] = reason.to_json()
        self._event(event)

    def _event(self, event: Mapping[str, Any]) -> None:
        with self._lock:
            self._log.event(event)


class Output:
    """One step's output: `write` takes bytes of a stream, `flush` gives what is left at the end."""

    def __init__(self, n: int, event: Callable[[Mapping[str, Any]], None]) -> None:
        self._n = n
        self._event = event
        self._left = OUTPUT_LIMIT
        # What is not UTF-8 shows as U+FFFD; a character cut by a chunk's end waits for the next.
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {"stdout": make("replace"), "stderr": make("replace")}

    def write(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        if self._left <= 0:
            return
        self._left -= len(data)
        self._say(stream, self._decoders[stream].decode(data))
        if self._left <= 0:
            self._say("stderr", f"\n[output over {OUTPUT_LIMIT >> 20} MiB is left out]\n")

    def flush(self) -> None:
        if self._left > 0:
            for stream, decoder in self._decoders.items():
                self._say(stream, decoder.decode(b"", final=True))

    def _say(self, stream: str, text: str) -> None:
        if text:
            self._event({"t": "out", "n": self._n, "s": 1 if stream == "stdout" else 2, "d": text})
