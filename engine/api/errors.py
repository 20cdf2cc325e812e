"""Errors as Docker says them: a status and `{"message": …}` in moby's words."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from engine.api.call import reply
from engine.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    InvalidReference,
    NotFound,
    PolicyDenied,
    QuaysideError,
    RegistryError,
    RegistryNotFound,
    RegistryUnauthorized,
    RegistryUnavailable,
    Unsupported,
    UserError,
    class_of,
)

# moby's spelling of what is missing, by the `kind` our NotFound carries.
_MISSING = {
    "container": "No such container: {name}",
    "image": "No such image: {name}",
    "network": "network {name} not found",
    "volume": "get {name}: no such volume",
    "exec": "No such exec instance: {name}",
}


class OperationFailed(UserError):
    """An error that was stored on an operation's row; `stored` is QuaysideError.as_dict()."""

    def __init__(self, stored: dict[str, Any]) -> None:
        super().__init__(
            stored.get("message", "failed"),
            hint=stored.get("hint", ""),
            **stored.get("context", {}),
        )
        self.stored_id = str(stored.get("id", "error"))


class QueueAway(UserError):
    """Redis does not answer: the operation waits in its row, and its client is told so."""

    id = "queue-away"

    def __init__(self, operation: int) -> None:
        super().__init__(
            f"queued as operation {operation}: the queue is away; it starts when the queue is back",
            operation=operation,
        )
        self.operation = operation


def kind_of(error: QuaysideError) -> type[QuaysideError]:
    """Its class; of a stored error the class it was stored from."""
    if isinstance(error, OperationFailed):
        return class_of(error.stored_id)
    return type(error)


_STATUS: tuple[tuple[type[QuaysideError], int], ...] = (
    (RegistryNotFound, 404),
    (RegistryUnauthorized, 404),
    (RegistryUnavailable, 500),
    (RegistryError, 500),
    (NotFound, 404),
    (PolicyDenied, 403),
    (Forbidden, 403),
    (Conflict, 409),
    (InvalidInput, 400),
    (Unsupported, 501),
    (QueueAway, 503),
    (UserError, 500),
)


def status_of(error: QuaysideError) -> int:
    kind = kind_of(error)
    return next((status for base, status in _STATUS if issubclass(kind, base)), 500)


def message_of(error: QuaysideError) -> str:
    """What the CLI prints behind `Error response from daemon: `; our hint goes with it, in
    parentheses, where moby has no sentence of its own."""
    if issubclass(kind_of(error), NotFound):
        pattern = _MISSING.get(str(error.context.get("kind", "")))
        name = error.context.get("name", error.context.get("id"))
        if pattern and name is not None:
            return pattern.format(name=name)
    if issubclass(kind_of(error), InvalidReference):
        return _invalid_reference(error)
    if error.hint:
        return f"{error.message} ({error.hint})"
    return error.message


def _invalid_reference(error: QuaysideError) -> str:
    if "no capitals" in str(error.context.get("reason", "")):
        name = str(error.context.get("reference", "")).partition("@")[0]
        folder, slash, last = name.rpartition("/")
        name = folder + slash + last.partition(":")[0]
        name = name if slash else f"library/{name}"
        return f"invalid reference format: repository name ({name}) must be lowercase"
    return "invalid reference format"


def answer(status: int, message: str) -> web.Response:
    return reply({"message": message}, status)


def answer_error(error: QuaysideError) -> web.Response:
    return answer(status_of(error), message_of(error))
