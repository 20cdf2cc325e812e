"""Every error the engine raises on purpose; imports nothing of ours.

    QuaysideError
    ├── UserError                 the request cannot be met as it stands; logged without a traceback
    │   ├── InvalidInput          a field or an argument is wrong
    │   │   ├── InvalidReference  an image name that cannot be one
    │   │   ├── DockerfileError   file, line range and the line itself
    │   │   └── ContextError      a build context or archive that is unsafe or incomplete
    │   ├── NotFound
    │   ├── Conflict
    │   │   ├── NameTaken
    │   │   ├── PortTaken
    │   │   └── WrongState        a transition the container's state does not allow
    │   ├── Forbidden             nobody may, as things stand: a network in use, a name of ours
    │   ├── Unsupported           known, but not built yet
    │   ├── PolicyDenied          beyond what root's ceiling or a team's policy allows
    │   ├── StepFailed            a RUN step ended with a code other than 0
    │   ├── RegistryError
    │   │   ├── RegistryUnauthorized   401, 403
    │   │   ├── RegistryNotFound       404
    │   │   ├── RegistryRateLimited    429
    │   │   ├── RegistryUnavailable    5xx, refused, timed out, name unknown
    │   │   └── ContentCorrupt         digest or size differs from what was promised
    │   ├── FetchFailed           what lies at an address somebody named cannot be had
    │   ├── NoSpace               the disk or the quota is full
    │   └── Cancelled             somebody asked for it to end
    └── EngineError               ours or the machine's fault; logged with its traceback
        ├── RuntimeFailed         runc, crun or conmon refused
        ├── NetworkFailed
        ├── MountFailed
        └── SupervisorLost        conmon died, its container went with it

Texts are lower case, name the path or id, and have no full stop. `id` is stable: the console
translates by it, with `context` filling the sentence in. `hint` says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class QuaysideError(Exception):
    """Base of all; `as_dict` is what is stored in rows and sent to browsers."""

    id: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "", **context: str | int) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context

    def as_dict(self) -> dict[str, Any]:
        """{"id": str, "message": str, "hint": str, "context": {str: str | int}}, JSON-safe."""
        return {
            "id": self.id,
            "message": self.message,
            "hint": self.hint,
            "context": dict(self.context),
        }


class UserError(QuaysideError):
    id = "user"


class InvalidInput(UserError):
    """`field` (in context) names the form field or argument at fault, where there is one."""

    id = "invalid-input"


class InvalidReference(InvalidInput):
    id = "invalid-reference"


class DockerfileError(InvalidInput):
    """Carries `file`, `line`, `end_line` (1-based, inclusive) and `source` (the line's text)."""

    id = "dockerfile"

    def __init__(
        self,
        message: str,
        *,
        line: int,
        end_line: int | None = None,
        source: str = "",
        file: str = "Dockerfile",
        hint: str = "",
        **context: str | int,
    ) -> None:
        super().__init__(
            message,
            hint=hint,
            file=file,
            line=line,
            end_line=end_line if end_line is not None else line,
            source=source,
            **context,
        )
        self.line = line
        self.end_line = end_line if end_line is not None else line

    def __str__(self) -> str:
        return f"{self.context['file']}:{self.line}: {self.message}"


class ContextError(InvalidInput):
    id = "build-context"


class NotFound(UserError):
    id = "not-found"


class Conflict(UserError):
    id = "conflict"


class NameTaken(Conflict):
    id = "name-taken"


class PortTaken(Conflict):
    """Context: `address`, `port`, `protocol`."""

    id = "port-taken"


class WrongState(Conflict):
    id = "wrong-state"


class Forbidden(UserError):
    id = "forbidden"


class Unsupported(UserError):
    id = "unsupported"


class PolicyDenied(UserError):
    id = "policy-denied"


class StepFailed(UserError):
    """Context: `code`, and `line`/`end_line` of the instruction where known."""

    id = "step-failed"


class RegistryError(UserError):
    id = "registry"


class RegistryUnauthorized(RegistryError):
    id = "registry-unauthorized"


class RegistryNotFound(RegistryError):
    id = "registry-not-found"


class RegistryRateLimited(RegistryError):
    id = "registry-rate-limited"


class RegistryUnavailable(RegistryError):
    id = "registry-unavailable"


class ContentCorrupt(RegistryError):
    id = "content-corrupt"


class FetchFailed(UserError):
    id = "fetch-failed"


class NoSpace(UserError):
    id = "no-space"


class Cancelled(UserError):
    id = "cancelled"


class EngineError(QuaysideError):
    id = "engine"


class RuntimeFailed(EngineError):
    id = "runtime-failed"


class NetworkFailed(EngineError):
    id = "network-failed"


class MountFailed(EngineError):
    id = "mount-failed"


class SupervisorLost(EngineError):
    id = "supervisor-lost"


def class_of(id: str) -> type[QuaysideError]:
    """The class an error's `id` stands for; EngineError where it stands for none."""
    classes: list[type[QuaysideError]] = [QuaysideError]
    for one in classes:
        if one.id == id:
            return one
        classes += one.__subclasses__()
    return EngineError


def revived(stored: Mapping[str, Any]) -> QuaysideError:
    """The error whose `as_dict` this is, to be raised again in another process."""
    found = class_of(str(stored.get("id", "")))
    error = found.__new__(found)  # some classes ask for more at their own making
    context = dict(stored.get("context") or {})
    message, hint = str(stored.get("message", "")), str(stored.get("hint", ""))
    QuaysideError.__init__(error, message, hint=hint, **context)
    return error
