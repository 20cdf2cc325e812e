"""docker-py's integration tests, driven by its current library: `script/docker-py` prepares them.

Starts the registry that stands for docker.io and one daemon, runs the tests in a process of their
own, and compares what failed with tests/conformance/docker_py.txt: a line a test that may fail,
`module.Class.test :: reason`. A failure that is not listed makes the run fail.

Some of the tests open the default socket whatever DOCKER_HOST says: it is linked for the run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from xml.etree import ElementTree

from tests.conformance.cases import read_differences
from tests.conformance.run import Target
from tests.conformance.targets import dockerd_target, given_registry, quayside_target

KNOWN = Path(__file__).parent / "conformance/docker_py.txt"
DEFAULT_SOCKET = Path("/var/run/docker.sock")
_LEAST = 247
# Of another engine's scope: swarm mode, and plugins from a registry out there.
_OUT = """
    api_config_test api_plugin_test api_secret_test api_service_test api_swarm_test
    models_nodes_test models_services_test models_swarm_test
"""

# What the tests ask of the host, and an administrator would have to allow.
_CEILING = {
    "bind_paths": ["/tmp"],
    "devices": ["/dev"],
    "host_namespaces": True,
    "network_subnets": ["0.0.0.0/0"],
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/docker-py", description=__doc__)
    parser.add_argument("cache", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dockerd", action="store_true", help="the reference instead of Quayside")
    options, rest = parser.parse_known_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qp-")))
        registry = stack.enter_context(given_registry(folder))
        daemon = (
            dockerd_target(folder, registry)
            if options.dockerd
            else quayside_target(folder, registry, _CEILING)
        )
        target = stack.enter_context(daemon)
        stack.enter_context(default_socket(Path(target.host.removeprefix("unix://"))))
        report = folder / "report.xml"
        run(options.cache, target, report, rest)
        results = read_report(report)
    code = compare(results, {} if options.dockerd else read_differences(KNOWN))
    passed = Counter(results.values())["passed"]
    # Of a whole run: a list of failures that grows must not pass for a suite that holds.
    if not options.dockerd and not rest and passed < _LEAST:
        say(f"FAILED  {passed} passed, at least {_LEAST} are asked for")
        return 1
    return code


@contextmanager
def default_socket(socket: Path) -> Iterator[None]:
    """A link at the CLI's default place; refuses when there is an engine's socket already."""
    if DEFAULT_SOCKET.is_symlink() and not DEFAULT_SOCKET.exists():
        DEFAULT_SOCKET.unlink()  # of a run that was killed
    if DEFAULT_SOCKET.exists() or DEFAULT_SOCKET.is_symlink():
        raise SystemExit(f"{DEFAULT_SOCKET} exists: stop the engine it belongs to first")
    DEFAULT_SOCKET.symlink_to(socket)
    try:
        yield
    finally:
        DEFAULT_SOCKET.unlink()


def run(cache: Path, target: Target, report: Path, arguments: Sequence[str]) -> None:
    """Its output goes to ours; its exit code says only that something failed."""
    left_out = [f"--ignore=tests/integration/{name}.py" for name in _OUT.split()]
    chosen = [word for word in arguments if word.startswith("tests/")]
    options = [word for word in arguments if word not in chosen]
    command = [
        *(str(cache / "venv/bin/python"), "-m", "pytest", "-q", "--tb=short", "--timeout=60"),
        *("-p", "no:cacheprovider", "-o", "addopts=", f"--junit-xml={report}", *left_out),
        *options,
        *(chosen or ["tests/integration"]),
    ]
    done = subprocess.run(
        [*target.inside, *command],
        cwd=cache,
        env={**target.environment(), "DOCKER_API_VERSION": ""},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if not report.exists():
        raise SystemExit(f"pytest ended with {done.returncode} and left no report")


def read_report(path: Path) -> dict[str, str]:
    """`module.Class.test` (or `module.test`): passed, failed, error or skipped."""
    found: dict[str, str] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '')}.{case.get('name', '')}"
        name = name.removeprefix("tests.integration.")
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        result = {"failure": "failed"}.get(kind := min(kinds, default="passed"), kind)
        if found.get(name) != "failed":
            found[name] = result
    return found


def compare(results: Mapping[str, str], known: Mapping[str, str]) -> int:
    """0 when every failure is a known one."""
    failed = {name for name, result in results.items() if result in ("failed", "error")}
    for name in sorted(failed & set(known)):
        say(f"known   {name}: {known[name]}")
    for name in sorted(set(known) & set(results) - failed):
        say(f"passes  {name}: take it off {KNOWN.name}")
    for name in sorted(failed - set(known)):
        say(f"FAILED  {name}")
    counts = Counter(results.values())
    say(", ".join(f"{count} {result}" for result, count in sorted(counts.items())))
    return 1 if failed - set(known) else 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    sys.exit(main())
