"""Runs cases against one daemon with the docker CLI, and says what came out."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.cases import Case, Step
from tests.conformance.scrub import Scrubber

SECONDS = 20
# What Quayside adds to docker's words: what to do about it, in brackets behind them.
_HINT = re.compile(r"(?<=^2> )(.*?) \((?:[^()]|\([^()]*\))*\)$", re.MULTILINE)
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Target:
    """A daemon: `host` is DOCKER_HOST, `inside` goes before a command that asks its ports."""

    name: str
    host: str
    folder: Path
    registry: str
    inside: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    """Of the processes all of its own descend from."""

    def environment(self) -> dict[str, str]:
        """The CLI's: classic builder, a configuration folder of its own, plain output."""
        return {
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "HOME": str(self.folder),
            "DOCKER_HOST": self.host,
            "DOCKER_BUILDKIT": "0",
            "DOCKER_CONFIG": str(self.folder / "config"),
            "DOCKER_CLI_HINTS": "false",
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step came to, scrubbed: a text for people, compared line by line."""

    command: str
    text: str
    more: bool = False
    """The other daemon may say more lines than this one, in any order."""


@dataclass(frozen=True, slots=True)
class Result:
    outcomes: tuple[Outcome, ...]
    seconds: float

    @property
    def text(self) -> str:
        return "\n".join(f"$ {one.command}\n{one.text}" for one in self.outcomes)


def differences(wanted: Result, found: Result) -> list[str]:
    """Empty when the second daemon did as the first."""
    lines = []
    for one, other in zip(wanted.outcomes, found.outcomes, strict=False):
        if one.more:
            missing = [
                line for line in one.text.splitlines() if line not in set(other.text.splitlines())
            ]
            same = not missing
        else:
            missing = [one.text]
            same = one.text in (other.text, _HINT.sub(r"\1", other.text))
        if not same:
            lines += [f"$ {one.command}", "--- dockerd", *missing, "--- quayside", other.text]
    if len(wanted.outcomes) != len(found.outcomes):
        lines.append(f"dockerd {len(wanted.outcomes)} steps, quayside {len(found.outcomes)}")
        lines += [wanted.outcomes[-1].text, found.outcomes[-1].text]
    return lines


def run_all(target: Target, cases: Sequence[Case], ports: Mapping[str, int]) -> dict[str, Result]:
    """By title. Cases that want to be alone come last, one at a time, each on a clean daemon."""
    results: dict[str, Result] = {}
    together = [case for case in cases if not case.alone]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for case, result in zip(
            together, pool.map(lambda one: run_case(target, one, ports), together), strict=True
        ):
            results[case.title] = result
    for case in cases:
        if case.alone:
            clean(target)
            results[case.title] = run_case(target, case, ports)
    return results


def clean(target: Target) -> None:
    """No containers, no volumes or networks of anybody's, no images but the three given ones."""
    script = """
        ids=$(docker ps -aq); [ -z "$ids" ] || docker rm -fv $ids
        ids=$(docker volume ls -q); [ -z "$ids" ] || docker volume rm -f $ids
        docker network prune -f
        for image in $(docker images -aq --no-trunc | sort -u); do
            case " $given " in *" $image "*) ;; *) echo $image ;; esac
        done | xargs -r docker rmi -f
        docker images --format '{{.Repository}}:{{.Tag}}' |
            grep -v -e '^alpine:latest$' -e '^busybox:latest$' -e '^hello-world:latest$' |
            xargs -r docker rmi -f
        docker builder prune -af
        true
    """
    given = "given=$(docker inspect -f '{{.Id}}' alpine busybox hello-world | xargs); "
    subprocess.run(
        ["sh", "-c", given + script],
        env=target.environment(),
        capture_output=True,
        timeout=120,
        check=True,
    )


def run_case(target: Target, case: Case, ports: Mapping[str, int]) -> Result:
    """Until a step that must succeed does not; its folder is removed afterwards."""
    began = time.monotonic()
    folder = target.folder / case.word
    folder.mkdir()
    words = {"@T": case.word, "@REG": target.registry, "@IN": " ".join(target.inside)}
    words |= {f"@P{n}": str(ports[f"{case.word}.{n}"]) for n in (1, 2)}
    scrubber = Scrubber((str(folder), *target.roots))
    outcomes = []
    try:
        for name, text in case.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_fill(text, words))
        for step in case.steps:
            code, out, err = _run(target, folder, step, words)
            if step.compared:
                parts = [scrubber.clean(out, step.rules)]
                if err:
                    parts.append("2> " + scrubber.clean(err, step.rules).replace("\n", "\n2> "))
                parts.append(f"exit {code}")
                text = "\n".join(part for part in parts if part)
                outcomes.append(Outcome(step.command, text, "more" in step.rules))
            elif code != "0":
                outcomes.append(Outcome(step.command, f"setup failed, {code}:\n{out}{err}"))
                break
    finally:
        shutil.rmtree(folder)
    return Result(tuple(outcomes), time.monotonic() - began)


def _fill(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _run(
    target: Target, folder: Path, step: Step, words: Mapping[str, str]
) -> tuple[str, str, str]:
    """(exit code in words, stdout, stderr)"""
    command = ["sh", "-c", _fill(step.command, words)]
    environment = target.environment()
    if step.typed:
        return _on_terminal(
            command, folder, environment, [(v, _fill(t, words)) for v, t in step.typed]
        )
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(_fill(step.stdin, words).encode(), SECONDS)
        except subprocess.TimeoutExpired:
            _kill_session(process.pid)
            out, err = process.communicate()
            return "after too long", out.decode(errors="replace"), err.decode(errors="replace")
    return str(process.returncode), out.decode(errors="replace"), err.decode(errors="replace")


def _kill_session(session: int) -> None:
    """Process groups of their own (timeout makes one) included."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if entry.read_text().rpartition(")")[2].split()[3] == str(session):
                os.kill(int(entry.parent.name), signal.SIGKILL)


def _on_terminal(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    typed: Sequence[tuple[str, str]],
) -> tuple[str, str, str]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    seen = b""
    deadline = time.monotonic() + SECONDS
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            start = 0
            for verb, text in typed:
                if verb == "send":
                    os.write(ours, text.encode())
                    continue
                while text.encode() not in seen[start:]:
                    more = _read(ours, deadline)
                    if not more:
                        break
                    seen += more
                start = max(start, seen.find(text.encode(), start) + len(text))
            while more := _read(ours, deadline):
                seen += more
        finally:
            late = time.monotonic() > deadline
            if late:
                _kill_session(process.pid)
            os.close(ours)
    code = "after too long" if late else str(process.returncode)
    return code, seen.decode(errors="replace"), ""


def _read(fd: int, deadline: float) -> bytes:
    """Empty at the end or when time is up."""
    if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
        return b""
    try:
        return os.read(fd, 1 << 16)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""  # the other side is closed: how a terminal ends
        raise
