"""What is told to whoever watches: which row changed, never what it now holds.

Readers fetch the rows they show; an event that is lost or doubled therefore costs a refresh and
never correctness. Imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    CONTAINER = "container"
    IMAGE = "image"
    BUILD = "build"
    OPERATION = "operation"
    NETWORK = "network"
    VOLUME = "volume"
    TERMINAL = "terminal"


@dataclass(frozen=True, slots=True)
class Changed:
    """A row of `kind` with primary key `id` changed or went; `rev` only ever grows (ms)."""

    kind: Kind
    id: str
    rev: int

    def as_message(self) -> dict[str, str | int]:
        """The `changed` message of the events socket."""
        return {"t": "changed", "kind": str(self.kind), "id": self.id, "rev": self.rev}


def group_of(namespace_id: int) -> str:
    """The channel-layer group that a namespace's events go to."""
    return f"events.{namespace_id}"
