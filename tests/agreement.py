"""Whether rows, disk and kernel say the same of a home: one sentence for each thing that differs.

    from tests.agreement import disagreements      # in a process that has the site's Django

Reads everything, changes nothing. What is only on its way (an operation that runs for real) shows
as a difference too: callers ask again until nothing is left or their time is up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from engine.containers.attempts import Attempt
from engine.containers.layout import ContainerDir
from engine.errors import QuaysideError
from engine.models import Build, Container, Endpoint, Operation, TerminalSession
from engine.runtime import cgroups
from engine.services.work.host import Host, host

_OVERLAY = re.compile(r" - overlay ")


def disagreements() -> list[str]:
    """Empty when all is well."""
    parts = host()
    rows = {row.uid: row for row in Container.objects.all()}
    running = {uid for uid, row in rows.items() if row.is_running}
    checks: tuple[Callable[[], Iterable[str]], ...] = (
        _operations,
        lambda: _containers(parts, rows),
        _builds,
        lambda: _files(parts, rows, running),
        lambda: _mounts(parts, running),
        lambda: _processes(parts, running),
        lambda: _network(parts, running),
    )
    return [line for check in checks for line in check()]


def _differ(what: str, found: Iterable[object], wanted: Iterable[object]) -> Iterator[str]:
    there, asked = {str(one) for one in found}, {str(one) for one in wanted}
    yield from (f"{what}: {one} is left over" for one in sorted(there - asked))
    yield from (f"{what}: {one} is missing" for one in sorted(asked - there))


def _operations() -> Iterator[str]:
    yield from (f"operation {o.pk} {o}" for o in Operation.objects.open())
    for operation in Operation.objects.filter(state=Operation.State.FAILED):
        if not (operation.error or {}).get("message"):
            yield f"operation {operation.pk} {operation} failed without a word"


def _containers(parts: Host, rows: dict[str, Container]) -> Iterator[str]:
    yield from _differ("container folder", parts.containers.list_on_disk(), rows)
    for uid, row in rows.items():
        try:
            seen = parts.containers.observe(uid)
        except QuaysideError as error:
            yield f"container {row.name}: {error}"
            continue
        if row.is_running != seen.running or seen.status in ("starting", "ended", "lost"):
            yield f"container {row.name} is {row.state}, the machine says {seen.status}"
        if row.is_running and seen.started is not None:
            if (row.generation, row.pid) != (seen.generation, seen.started.init_pid):
                yield f"container {row.name}: {row.generation}, {row.pid} against {seen}"
        elif row.state == Container.State.EXITED and row.exit_code is None:
            yield f"container {row.name} has ended without a code"


def _builds() -> Iterator[str]:
    for build in Build.objects.all():
        if build.is_open:
            yield f"build {build} is {build.state}"
        if build.state == Build.State.FAILED and not (build.error or {}).get("message"):
            yield f"build {build} failed without a word"
    lent = Endpoint.objects.filter(container=None)
    yield from (f"address {one} is still a build's" for one in lent)


def _execs(rows: Iterable[str]) -> list[str]:
    open_ = TerminalSession.objects.filter(
        kind=TerminalSession.Kind.EXEC, state=TerminalSession.State.OPEN, container__uid__in=rows
    )
    return [session.pk.hex for session in open_]


def _files(parts: Host, rows: dict[str, Container], running: set[str]) -> Iterator[str]:
    config = parts.config
    active = {info.name for info in parts.snapshots.walk() if info.kind == "active"}
    yield from _differ("active snapshot", active, (f"container-{uid}" for uid in rows))
    yield from _differ("layer without a name", (config.snapshots_dir / "trash").glob("*"), ())
    for entry in config.exits_dir.iterdir():
        owner, _, generation = entry.name.partition(".")
        if owner == "exec":
            if not any((ContainerDir(config, uid).exec(generation)).is_dir() for uid in rows):
                yield f"exit folder {entry.name} is of no exec"
        elif owner not in rows or int(generation) > rows[owner].generation:
            yield f"exit folder {entry.name} is of no start"
        elif owner not in running and not Attempt(entry, owner).finished:
            yield f"exit folder {entry.name} was not finished"
    steps = config.run_dir / "steps"
    yield from _differ("step", steps.iterdir() if steps.is_dir() else (), ())
    yield from _differ("build's work folder", config.builds_dir.glob("*/work"), ())
    leases = (config.content_dir / "leases").glob("*")
    yield from _differ("lease", (one.name for one in leases if one.name != "lock"), ())
    yield from _differ("part of a blob", (config.content_dir / "ingests").glob("*"), ())


def _mounts(parts: Host, running: set[str]) -> Iterator[str]:
    """In our own view, and in that of every process of this home."""
    home = parts.config.home
    wanted = {ContainerDir(parts.config, uid).rootfs for uid in running}
    memory = (parts.config.exits_dir, parts.config.names_dir)
    wanted.update(folder for folder in memory if os.path.ismount(folder))
    for pid in ("self", *_ours(home)):
        targets = {
            Path(line.split()[4])
            for line in _read(f"/proc/{pid}/mountinfo").splitlines()
            if f" {home}/" in line and (pid == "self" or _OVERLAY.search(line))
        }
        if pid == "self":
            yield from _differ("mount", targets, wanted)
        else:
            yield from (f"mount {one} is held by {pid}" for one in sorted(targets - wanted))
    yield from (
        f"namespace {line.split()[4]} is mounted"
        for line in _read("/proc/self/mountinfo").splitlines()
        if " - nsfs " in line and str(home) in line
    )


def _processes(parts: Host, running: set[str]) -> Iterator[str]:
    top = f"/{parts.config.cgroup_parent}"
    yield from _differ("runtime's state", parts.runtime.list(), running)
    yield from _differ("cgroup", cgroups.children(top) - {"conmon"}, running)
    conmons = set()
    for folder in parts.config.exits_dir.iterdir():
        owner, _, generation = folder.name.partition(".")
        known = owner in running if owner != "exec" else generation in _execs(running)
        ref = Attempt(folder, owner).processes()[0]
        if known and ref is not None and ref.alive():
            conmons.add(ref.pid)
    yield from _differ("conmon", cgroups.pids(f"{top}/conmon"), conmons)
    for pid in _ours(parts.config.home):
        for target in _open_files(pid):
            if target.startswith("net:"):
                yield f"process {pid} holds the namespace {target}"


def _network(parts: Host, running: set[str]) -> Iterator[str]:
    found = parts.network.observe()
    places = list(
        Endpoint.objects.filter(container__uid__in=running).values_list("container__uid", flat=True)
    )
    yield from _differ("network record", (record.id for record in found.containers), places)
    yield from _differ("veth", range(len(found.veths)), range(len(places)))
    yield from _differ("bridge", found.bridges, (network.bridge for network in found.networks))
    ports = Container.objects.filter(uid__in=running, ports__published_port__isnull=False)
    wanted = ports.values_list("uid", "ports__published_port")
    published = ((owner, port.host_port) for owner, port, _ in found.published)
    yield from _differ("published port", published, wanted)
    servers = {
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and (words := _read(f"/proc/{entry.name}/cmdline").split("\0"))
        and words[0].endswith("/aardvark-dns")
        and words[2].startswith(f"{parts.config.home}/")
    }
    yield from _differ("name server", servers, found.name_servers)


def _ours(home: Path) -> list[str]:
    """web, workers and engined: by the home in their environment."""
    word = f"QUAYSIDE_HOME={home}"
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        if word in _read(f"/proc/{entry.name}/environ").split("\0"):
            found.append(entry.name)
    return found


def _open_files(pid: str) -> list[str]:
    try:
        return [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []  # it has ended, or closed one meanwhile


def _read(path: str) -> str:
    try:
        return Path(path).read_bytes().decode(errors="replace")
    except OSError:
        return ""
