"""Starts dockerd and Quayside, measures them in turn, and has the results written.

Every figure is the median of repetitions taken A B A B on one machine in one run: the ratios of a
row can be compared, milliseconds of two runs hardly.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.measures import Measure, measures
from benchmarks.report import Row, write_results
from tests.conformance.run import Target
from tests.conformance.targets import dockerd_target, given_registry, quayside_target
from tests.site import free_port


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small amounts: does it work?")
    parser.add_argument("--only", default="", metavar="PATTERN", help="of the measures' names")
    parser.add_argument("--to", type=Path, help="folder of the results")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qb-")))
        registry = stack.enter_context(given_registry(folder))
        docker = stack.enter_context(dockerd_target(folder, registry))
        quayside = stack.enter_context(quayside_target(folder, registry))
        engines = [Engine(docker), Engine(quayside)]
        time.sleep(0.5 if options.quick else 10)
        memory = [engine.memory() for engine in engines]
        rows = []
        for measure in measures(options.quick):
            if re.search(options.only, measure.name):
                rows.append(take(measure, engines))
                say(rows[-1].line())
        rows.append(Row("idle memory (PSS)", "MB", *memory, None, 1))
        say(rows[-1].line())
        versions = [engine.version() for engine in engines]
    if options.to is None and not options.quick and not options.only:
        options.to = Path("benchmarks")
    if options.to is not None:
        write_results(options.to, rows, versions)
    return 0


class Engine:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.folder = target.folder / "bench"
        self.folder.mkdir()
        self._environment = {
            **target.environment(),
            "DIR": str(self.folder),
            "PORT": str(free_port()),
        }

    def run(self, line: str) -> float:
        """Seconds. Raises AssertionError with what it said when it fails."""
        began = time.monotonic()
        done = subprocess.run(
            ["sh", "-c", line],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        took = time.monotonic() - began
        assert done.returncode == 0, f"{self.target.name}: {line}\n{done.stdout}{done.stderr}"
        return took

    def memory(self) -> float:
        """MB of all its processes, shared pages by their share."""
        pids = set(self.target.pids)
        parents = {int(path.name): _parent(path) for path in Path("/proc").glob("[0-9]*")}
        while more := {pid for pid, parent in parents.items() if parent in pids} - pids:
            pids |= more
        return sum(_pss(pid) for pid in pids) / 1000

    def version(self) -> str:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return f"{self.target.name} {done.stdout.strip()}"


def take(measure: Measure, engines: list[Engine]) -> Row:
    """Each engine in turn, the one after the other, so that both see the same machine."""
    seconds: list[list[float]] = [[], []]
    for engine in engines:
        engine.run(measure.once)
    for number in range(measure.times + 1):
        for engine, found in zip(engines, seconds, strict=True):
            engine.run(measure.before)
            took = engine.run(measure.timed)
            engine.run(measure.after)
            if number:  # the first one warms up
                found.append(took)
    for engine in engines:
        engine.run(measure.end)
    docker, quayside = (statistics.median(found) * 1000 for found in seconds)
    return Row(measure.name, "ms", docker, quayside, measure.wanted, measure.times)


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0  # it has just ended


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0  # ended, or one of the kernel's
    found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    sys.exit(main())
