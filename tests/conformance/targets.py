"""The two daemons that are compared, and the registry that stands for docker.io to both."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conformance.cases import Case
from tests.conformance.run import Target
from tests.dockerd import running_dockerd
from tests.registry import RegistryServer, push_image, running_registry
from tests.rootfs import busybox, make_rootfs
from tests.site import Site, free_port, running_site

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IMAGES = ("alpine", "busybox", "hello-world")
_HELLO = "#!/bin/sh\necho\necho Hello from Docker!\n"


@contextmanager
def given_registry(folder: Path) -> Iterator[RegistryServer]:
    """docker.io's mirror: alpine, busybox and hello-world, all made of busybox-static."""
    with running_registry(folder) as registry:
        full, small = folder / "full", folder / "small"
        make_rootfs(full)
        _push(registry, "busybox", full, ["sh"], "2026-02-01T00:00:00Z")
        (full / "etc/alpine-release").write_text("3.20.3\n")
        _push(registry, "alpine", full, ["/bin/sh"], "2026-01-01T00:00:00Z")
        # docker-py's tests ask for this one, for its folder and its user.
        (full / "etc/alpine-release").write_text("3.10.9\n")
        (full / "var/opt").mkdir()
        with (full / "etc/passwd").open("a") as file:
            file.write("postgres:x:70:70::/var/lib/postgresql:/bin/sh\n")
        _push(registry, "alpine", full, ["/bin/sh"], "2025-12-01T00:00:00Z", "3.10")
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
            (small / name).mkdir(parents=True)
        (small / "bin/sh").write_bytes(busybox().read_bytes())
        (small / "bin/sh").chmod(0o755)
        (small / "hello").write_text(_HELLO)
        (small / "hello").chmod(0o755)
        _push(registry, "hello-world", small, ["/hello"], "2026-03-01T00:00:00Z")
        yield registry


def _push(
    registry: RegistryServer,
    name: str,
    root: Path,
    command: list[str],
    when: str,
    tag: str = "latest",
) -> None:
    config = {"Cmd": command, "Env": [PATH]}
    more = {"created": when}
    push_image(registry, f"library/{name}", tag, layers=[root], config=config, image=more)


@contextmanager
def dockerd_target(folder: Path, registry: RegistryServer) -> Iterator[Target]:
    """`folder` must be short: a socket's path is at most 107 characters."""
    state = folder / "dockerd"
    with running_dockerd(state, mirror=registry.url, relays=[registry.address]) as dockerd:
        target = Target(
            "dockerd",
            dockerd.host,
            folder / "dockerd-cases",
            registry.address,
            dockerd.inside(),
            (str(dockerd.data), str(state)),
            (dockerd.pid,),
        )
        _prepare(target)
        yield target


@contextmanager
def quayside_target(
    folder: Path, registry: RegistryServer, ceiling: Mapping[str, object] | None = None
) -> Iterator[Target]:
    """By default what a case binds lies in its own folder; what is not there is asked for too."""
    with running_site(
        QUAYSIDE_REGISTRY_MIRRORS=f"docker.io={registry.url}",
        QUAYSIDE_INSECURE_REGISTRIES=f"{registry.address},127.0.0.1:1",
    ) as site:
        target = site_target(site, folder, registry)
        allowed = ceiling or {"bind_paths": [str(folder), "/nosuch"]}
        (site.home / "ceiling.json").write_text(json.dumps(allowed))
        _wait_for(Path(host_socket(site)))
        _prepare(target)
        yield target


def host_socket(site: Site) -> str:
    return f"{site.home}/run/docker.sock"


def _wait_for(path: Path) -> None:
    """The API is a process of its own: it may answer a moment after the pages."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.connect(str(path))
            return
        time.sleep(0.02)
    raise AssertionError(f"nobody answers at {path}")


def site_target(site: Site, folder: Path, registry: RegistryServer) -> Target:
    host = f"unix://{host_socket(site)}"
    folder = folder / "quayside-cases"
    pids = (site.process.pid,) if site.process else ()
    return Target("quayside", host, folder, registry.address, (), (str(site.home),), pids)


def _prepare(target: Target) -> None:
    (target.folder / "config").mkdir(parents=True)
    (target.folder / "config/config.json").write_text(json.dumps({}))
    for image in IMAGES:
        done = subprocess.run(
            ["docker", "pull", "-q", image],
            env=target.environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{target.name}: {done.stderr}"


def free_ports(cases: Sequence[Case]) -> dict[str, int]:
    """Two for each case ("t007.1", "t007.2"), the same whoever is asked."""
    names = [f"{case.word}.{number}" for case in cases for number in (1, 2)]
    return dict(zip(names, _different(len(names)), strict=True))


def _different(count: int) -> set[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return found


def selected(cases: Sequence[Case], pattern: str) -> list[Case]:
    return [case for case in cases if re.search(pattern, case.title)]
