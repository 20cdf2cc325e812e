"""A start that failed, told as dockerd tells it: the CLI takes its exit code from the words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import InvalidInput, QuaysideError

_RUNC = (
    "failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: exec: "
)


def failed_start(stored: Mapping[str, Any] | None) -> tuple[int, str]:
    """(State.ExitCode, State.Error) of an error on a container's row; (0, "") without one."""
    if not stored:
        return 0, ""
    context = stored.get("context") or {}
    code = int(context.get("code") or 0)
    return code, _words(code, str(context.get("command", ""))) or str(stored.get("message", ""))


def in_runcs_words(error: QuaysideError) -> QuaysideError:
    """The error itself, but for a command that could not be run."""
    words = _words(int(error.context.get("code") or 0), str(error.context.get("command", "")))
    return InvalidInput(words) if words else error


def _words(code: int, command: str) -> str:
    if code == 127 and command:
        if "/" in command:
            return f'{_RUNC}"{command}": stat {command}: no such file or directory: unknown'
        return f'{_RUNC}"{command}": executable file not found in $PATH: unknown'
    if code == 126 and command:
        return f'{_RUNC}"{command}": permission denied: unknown'
    return ""
