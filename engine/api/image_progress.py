"""Progress of pulls and pushes as the lines docker's client draws (pkg/jsonmessage).

Pure: an operation's progress in, lines out. Layers are named by twelve digits. What was passed over
between two looks is said all the same, so that no line is missing where a client prints each once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Line = dict[str, Any]

_PULL = ("Pulling fs layer", "Downloading", "Verifying Checksum", "Download complete", "Extracting")
_STAGE = {"downloading": 1, "extracting": 4, "done": 5}
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def status(text: str, id: str = "") -> Line:
    return {"status": text, **({"id": id} if id else {})}


def bar(text: str, id: str, current: int, total: int) -> Line:
    """A line with a bar: {"status", "progressDetail": {current, total}, "progress", "id"}."""
    return {
        "status": text,
        "progressDetail": {"current": current, "total": total},
        "progress": _drawn(current, total),
        "id": id,
    }


def is_here(progress: Mapping[str, Any]) -> bool:
    """Whether all the layers a pull knows of so far are on this machine."""
    return all(layer["kind"] == "exists" for layer in progress.get("layers") or ())


class PullLines:
    """What is said of one pull; give it each progress as it comes."""

    def __init__(self) -> None:
        self._stages: dict[str, int] = {}
        self._last: dict[str, tuple[str, int]] = {}

    def next(self, progress: Mapping[str, Any]) -> list[Line]:
        """`layers` of the progress: [{digest, kind, current, total}], in their order."""
        layers: Sequence[Mapping[str, Any]] = progress.get("layers") or ()
        lines: list[Line] = []
        for layer in layers:
            id = _short(layer)
            if id not in self._stages:
                self._stages[id] = 0 if layer["kind"] != "exists" else 5
                lines.append(
                    status("Already exists", id)
                    if layer["kind"] == "exists"
                    else {"status": _PULL[0], "progressDetail": {}, "id": id}
                )
        for layer in layers:
            lines += self._of(layer)
        return lines

    def _of(self, layer: Mapping[str, Any]) -> list[Line]:
        id, kind = _short(layer), str(layer["kind"])
        current, total = int(layer["current"]), int(layer["total"])
        stage = _STAGE.get(kind, 0)
        if kind == "downloading" and total and current >= total:
            stage = 3
        before = self._stages[id]
        lines: list[Line] = [
            {"status": _PULL[passed], "progressDetail": {}, "id": id}
            for passed in (2, 3)
            if before < passed <= stage
        ]
        if stage == 5 and before < 5:
            lines.append({"status": "Pull complete", "progressDetail": {}, "id": id})
        elif stage in (1, 4) and self._last.get(id) != (kind, current) and current:
            lines.append(bar(_PULL[stage], id, current, total))
        self._last[id] = (kind, current)
        self._stages[id] = max(stage, before)
        return lines


class PushLines:
    """The same of a push: kinds preparing, pushing, pushed, exists, mounted."""

    _WORDS = {"pushed": "Pushed", "exists": "Layer already exists"}

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, int]] = {}

    def next(self, progress: Mapping[str, Any]) -> list[Line]:
        lines: list[Line] = []
        layers: Sequence[Mapping[str, Any]] = progress.get("layers") or ()
        for layer in layers:
            if _short(layer) not in self._last:
                self._last[_short(layer)] = ("preparing", 0)
                lines.append({"status": "Preparing", "progressDetail": {}, "id": _short(layer)})
        for layer in layers:
            id, kind, current = _short(layer), str(layer["kind"]), int(layer["current"])
            if self._last[id] == (kind, current):
                continue
            self._last[id] = (kind, current)
            if kind == "pushing":
                lines.append(bar("Pushing", id, current, int(layer["total"])))
            elif kind == "mounted":
                text = f"Mounted from {layer.get('from', '')}"
                lines.append({"status": text, "progressDetail": {}, "id": id})
            elif kind in self._WORDS:
                lines.append({"status": self._WORDS[kind], "progressDetail": {}, "id": id})
        return lines


def _short(layer: Mapping[str, Any]) -> str:
    return str(layer["digest"]).removeprefix("sha256:")[:12]


def _drawn(current: int, total: int) -> str:
    """`[=====>      ]  1.2MB/3.4MB`, as old clients print it and new ones draw by themselves."""
    if total <= 0:
        return f"{_size(current):>8}"
    filled = min(50, current * 50 // total)
    return f"[{'=' * filled}>{' ' * (50 - filled)}] {_size(current):>8}/{_size(total)}"


def _size(count: int) -> str:
    """Four digits at most, as go-units' HumanSize."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.4g}{_UNITS[unit]}"
