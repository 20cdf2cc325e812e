"""How far a transfer's layers are, written to its operation's row a few times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections

from engine.images.progress import Board, Progress
from engine.models import Operation
from engine.services import operations

_REPORT_SECONDS = 0.25


class LayerTally:
    """Collects Progress by layer and passes the whole on, at most four times a second."""

    def __init__(self, report: Callable[[list[dict[str, Any]]], None]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._layers: dict[str, dict[str, Any]] = {}
        self._last = 0.0

    def add(self, progress: Progress) -> None:
        with self._lock:
            if progress.digest:
                self._layers[str(progress.digest)] = {
                    "digest": str(progress.digest),
                    "kind": progress.kind,
                    "current": progress.current,
                    "total": progress.total,
                    **({"from": progress.source} if progress.source else {}),
                }
            if time.monotonic() - self._last < _REPORT_SECONDS:
                return
            self._last = time.monotonic()
            layers = list(self._layers.values())
        self._report(layers)

    def flush(self) -> None:
        self._report(list(self._layers.values()))


@contextmanager
def reported(operation: Operation, **more: Any) -> Iterator[Board]:
    """A board for workers of any thread; one thread of its own writes the row meanwhile, and the
    last word is there when the block has ended."""
    tally = LayerTally(lambda layers: operations.report(operation, {**more, "layers": layers}))
    board = Board(tally.add)
    done = threading.Event()

    def write() -> None:
        try:
            while not done.wait(_REPORT_SECONDS):
                board.publish()
        finally:
            connections.close_all()  # this thread's own, which ends with it

    thread = threading.Thread(target=write, name=f"report-{operation.pk}", daemon=True)
    thread.start()
    try:
        yield board
    finally:
        done.set()
        thread.join()
        board.publish()
        tally.flush()
