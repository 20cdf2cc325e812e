"""Both daemons run the selected cases at the same time, once, before the first test looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conformance.cases import Case
from tests.conformance.run import Result, Target, run_all
from tests.conformance.targets import (
    dockerd_target,
    free_ports,
    given_registry,
    quayside_target,
)
from tests.registry import RegistryServer


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """pytest's own folders are too deep for a socket."""
    with TemporaryDirectory(prefix="qc-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def hub(short_folder: Path) -> Iterator[RegistryServer]:
    """What stands for docker.io."""
    with given_registry(short_folder) as registry:
        yield registry


@pytest.fixture(scope="session")
def quayside(short_folder: Path, hub: RegistryServer) -> Iterator[Target]:
    with quayside_target(short_folder, hub) as target:
        yield target


@pytest.fixture(scope="session")
def results(
    request: pytest.FixtureRequest, short_folder: Path, hub: RegistryServer, quayside: Target
) -> Mapping[str, tuple[Result, Result]]:
    """By a case's title: what dockerd came to, what Quayside came to."""
    chosen: list[Case] = [
        item.callspec.params["case"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and "results" in item.fixturenames
    ]
    ports = free_ports(chosen)
    with ExitStack() as stack:
        dockerd = stack.enter_context(dockerd_target(short_folder, hub))
        with ThreadPoolExecutor() as pool:
            first = pool.submit(run_all, dockerd, chosen, ports)
            second = pool.submit(run_all, quayside, chosen, ports)
            wanted, found = first.result(), second.result()
    return {case.title: (wanted[case.title], found[case.title]) for case in chosen}
