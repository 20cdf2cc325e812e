"""What of a Dockerfile is known but not built yet: refused by name, at its line, before any step.

Pure. Leaves stages and targets to engine.build.plan.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from engine.dockerfile.instructions import Add, Copy, Instruction, Run, Transfer
from engine.errors import Unsupported

_REMOTE = re.compile(r"(https?|ftp|git|ssh)://|git@|github\.com/", re.IGNORECASE)
_OCTAL = re.compile(r"[0-7]{1,4}")


def is_remote(source: str) -> bool:
    """Whether an ADD source is an address rather than a path."""
    return _REMOTE.match(source) is not None or (":" in source and source.endswith(".git"))


def unsupported(instruction: Instruction, what: str, hint: str, file: str) -> Unsupported:
    """The error that names the line of what is known but not built yet."""
    return Unsupported(
        f"{what} is not supported yet",
        hint=hint,
        file=file,
        line=instruction.line,
        end_line=instruction.end_line,
        source=instruction.source,
    )


def check(instruction: Instruction, file: str) -> None:
    """Raises Unsupported with the line."""
    for one in _CHECKS:
        one(instruction, file)


def _check_run(instruction: Instruction, file: str) -> None:
    if not isinstance(instruction, Run):
        return
    if instruction.mount_texts:
        raise unsupported(instruction, "RUN --mount", "use COPY, and remove what is not kept", file)
    if instruction.network not in ("default", "none"):
        raise unsupported(
            instruction, f"RUN --network={instruction.network}", "use default or none", file
        )
    if instruction.security != "sandbox":
        raise unsupported(
            instruction, f"RUN --security={instruction.security}", "remove the flag", file
        )
    if instruction.devices:
        raise unsupported(instruction, "RUN --device", "remove the flag", file)


def _check_transfer(instruction: Instruction, file: str) -> None:
    if not isinstance(instruction, Transfer):
        return
    for given, flag in ((instruction.link, "--link"), (instruction.exclude, "--exclude")):
        if given:
            raise unsupported(instruction, f"{instruction.keyword} {flag}", "remove the flag", file)
    if instruction.chmod and "$" not in instruction.chmod:
        octal_mode(instruction, file)
    if isinstance(instruction, Copy) and instruction.parents:
        raise unsupported(instruction, "COPY --parents", "copy each folder to its place", file)


def _check_add(instruction: Instruction, file: str) -> None:
    if not isinstance(instruction, Add):
        return
    for given, flag in (
        (instruction.checksum, "--checksum"),
        (instruction.keep_git_dir, "--keep-git-dir"),
        (instruction.unpack is not None, "--unpack"),
    ):
        if given:
            raise unsupported(instruction, f"ADD {flag}", "remove the flag", file)
    for source in instruction.sources:
        check_local(instruction, source, file)


def check_local(instruction: Transfer, source: str, file: str) -> None:
    """Raises Unsupported for an address; asked again once variables are put in."""
    if isinstance(instruction, Add) and is_remote(source):
        raise unsupported(
            instruction,
            f"ADD of an address ({source})",
            "fetch it in a RUN step, or put the file into the context",
            file,
        )


def octal_mode(instruction: Transfer, file: str) -> int | None:
    """--chmod as a number, None without it. Raises Unsupported for u=rwx,go=rx."""
    if not instruction.chmod:
        return None
    if not _OCTAL.fullmatch(instruction.chmod):
        raise unsupported(
            instruction,
            f"--chmod={instruction.chmod}",
            "write the mode in octal, like --chmod=755",
            file,
        )
    return int(instruction.chmod, 8)


_CHECKS: tuple[Callable[[Instruction, str], None], ...] = (
    _check_run,
    _check_transfer,
    _check_add,
)
