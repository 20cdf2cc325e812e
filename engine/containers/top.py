"""The processes of a container, as the host's `ps` tells them (moby daemon/top_unix.go).

Only lines whose pid is in the container's cgroup come out, so the column of pids must be the one:
a header that passes another column for it is refused.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from engine.errors import InvalidInput, RuntimeFailed
from engine.runtime.oci_runtime import ENVIRONMENT

DEFAULT_ARGUMENTS = "-ef"
_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Top:
    """`processes`: a row each, with a text for each of `titles`."""

    titles: tuple[str, ...]
    processes: tuple[tuple[str, ...], ...]


def top(pids: Iterable[int], arguments: str = DEFAULT_ARGUMENTS) -> Top:
    """`pids` as the host has them; `arguments` for ps, by spaces. Raises InvalidInput with ps's own
    words, RuntimeFailed where there is no ps."""
    wanted = frozenset(pids)
    words = [word for word in arguments.split(" ") if word] or [DEFAULT_ARGUMENTS]
    _check(words)
    numbers = ",".join(map(str, sorted(wanted)))
    # Some options cannot be used together with -q: those are asked without it.
    done = _ps([f"-q{numbers}", *words]) if numbers else None
    if done is None or done.returncode != 0:
        done = _ps(words)
    if done.returncode != 0:
        text = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InvalidInput(f"ps: {text[0] if text else 'failed'}", field="ps_args")
    return read(done.stdout.decode("utf-8", "replace"), wanted)


def read(text: str, pids: frozenset[int]) -> Top:
    """ps's output, less what is none of `pids`. Pure. Raises InvalidInput without such a column."""
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidInput(
            "Couldn't find PID field in ps output", hint="leave the pid in", field="ps_args"
        )
    index, last = titles.index("PID"), len(titles) - 1
    processes, inside = [], False
    for line in lines[1:]:
        fields = line.split(None, last)
        if len(fields) <= index:
            continue
        # Threads (-m) have no pid of their own and come behind their process.
        if fields[index] != "-":
            inside = fields[index].isdigit() and int(fields[index]) in pids
        if inside:
            processes.append(tuple(" ".join(field.split()) for field in fields))
    return Top(tuple(titles), tuple(processes))


def _check(words: list[str]) -> None:
    for word in words:
        name, given, header = word.partition("=")
        if given and "PID" in header and (name, header) != ("pid", "PID"):
            raise InvalidInput(
                f'specifying "{word}" is not allowed', hint="name no column PID", field="ps_args"
            )


def _ps(words: list[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ps", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=ENVIRONMENT,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeFailed(f"cannot run ps: {error}", hint="install Debian's procps") from error
