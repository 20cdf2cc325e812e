"""The cases by hand: `python -m tests.conformance [--dockerd] [--quayside] [--show] [PATTERN]`.

Without a daemon named both are started and their differences shown; --show prints what each step
came to. DOCKERD and QUAYSIDE in the environment name sockets of daemons that run already, with
REGISTRY the address of the registry they were started with (tests.conformance.hold prints these).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.conformance.cases import read_cases, read_differences
from tests.conformance.run import Result, Target, differences, run_all
from tests.conformance.targets import (
    dockerd_target,
    free_ports,
    given_registry,
    quayside_target,
    selected,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--dockerd", action="store_true")
    parser.add_argument("--quayside", action="store_true")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("pattern", nargs="?", default="")
    options = parser.parse_args()
    both = options.dockerd == options.quayside
    cases = selected(read_cases(), options.pattern)
    known = read_differences()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qc-")))
        registry = stack.enter_context(given_registry(folder))
        targets: list[Target] = []
        if both or options.dockerd:
            targets.append(stack.enter_context(dockerd_target(folder, registry)))
        if both or options.quayside:
            targets.append(stack.enter_context(quayside_target(folder, registry)))
        ports = free_ports(cases)
        began = time.monotonic()
        with ThreadPoolExecutor() as pool:
            runs = [pool.submit(run_all, target, cases, ports) for target in targets]
            results = [run.result() for run in runs]
        say(f"{len(cases)} cases in {time.monotonic() - began:.0f} s")
    for case in cases:
        found = [by_title[case.title] for by_title in results]
        report(case.title, found, options.show, case.title in known)
    return 0


def report(title: str, found: list[Result], show: bool, known: bool) -> None:
    seconds = " ".join(f"{one.seconds:.1f}" for one in found)
    unequal = differences(found[0], found[1]) if len(found) == 2 else []
    mark = ("known" if known else "DIFFERS") if unequal else "listed but equal" if known else "ok"
    say(f"=== {title}: {mark} ({seconds} s)")
    if unequal and not known:
        say("\n".join(unequal))
    elif show:
        say(found[0].text)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    sys.exit(main())
