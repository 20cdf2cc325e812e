"""Namespaces a container shares: the host's, or another container's (`container:ID`).

What is joined is held open as long as the block lasts, so that a pid that has become somebody
else's meanwhile is never joined. Whether it may be is asked before (engine.containers.policy, and
services for who owns the other one).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from engine.config import EngineConfig
from engine.containers.attempts import Attempt
from engine.containers.layout import ContainerDir
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput, WrongState
from engine.runtime.processes import ProcessRef
from engine.runtime.spec import DEFAULT_SHM_BYTES, Mount, shm_mount
from engine.snapshots.mount import mount_tmpfs

_OTHER = "container:"
_BIND = ("rbind", "rprivate")


@dataclass(slots=True)
class Joined:
    """`namespaces` as engine.runtime.spec.ContainerSpec.joined; `shm` what is mounted on /dev/shm;
    `network_of` the container whose network, name and hosts are shared, if one is."""

    namespaces: dict[str, str] = field(default_factory=dict)
    shm: Mount | None = None
    network_of: ContainerDir | None = None

    @property
    def host_network(self) -> bool:
        return self.namespaces.get("network") == ""


def other(mode: str) -> str:
    """The id in `container:ID`; "" for another mode."""
    return mode.removeprefix(_OTHER) if mode.startswith(_OTHER) else ""


@contextmanager
def joined(
    config: EngineConfig, directory: ContainerDir, settings: ContainerSettings
) -> Iterator[Joined]:
    """Raises WrongState where the other container does not run, InvalidInput where its shared
    memory is its own."""
    host = settings.host
    found = Joined()
    with ExitStack() as held:
        for kind, mode in (
            ("network", settings.network_mode),
            ("pid", host.pid_mode),
            ("ipc", host.ipc_mode),
            ("uts", host.uts_mode),
        ):
            if mode == "host":
                found.namespaces[kind] = ""
            elif id := other(mode):
                found.namespaces[kind] = _namespace(config, kind, id, held)
        if id := other(settings.network_mode):
            found.network_of = ContainerDir(config, id)
        found.shm = _shm(config, directory, settings)
        yield found


def host_name() -> str:
    return socket.gethostname()


def _namespace(config: EngineConfig, kind: str, id: str, held: ExitStack) -> str:
    init = _init(config, id)
    if init is not None:
        file = {"network": "net"}.get(kind, kind)
        try:
            descriptor = os.open(f"/proc/{init.pid}/ns/{file}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
        else:
            held.callback(os.close, descriptor)
            if init.alive():
                return f"/proc/{os.getpid()}/fd/{descriptor}"
    raise WrongState(
        f"cannot join {'network' if kind == 'network' else kind.upper()} of a non running "
        f"container: {id}",
        hint="start that container first",
        id=id,
    )


def _init(config: EngineConfig, id: str) -> ProcessRef | None:
    for folder in reversed(ContainerDir(config, id).attempts().values()):
        return Attempt(folder, id).processes()[1]
    return None


def _shm(
    config: EngineConfig, directory: ContainerDir, settings: ContainerSettings
) -> Mount | None:
    mode, size = settings.host.ipc_mode, settings.host.shm_size or DEFAULT_SHM_BYTES
    if mode == "none":
        return None
    if mode == "host":
        return Mount("/dev/shm", "/dev/shm", options=_BIND)
    if id := other(mode):
        theirs = ContainerDir(config, id).shm
        if not theirs.is_mount():
            raise InvalidInput(
                f"can't join IPC of container {id}: non-shareable IPC",
                hint="hint: use IpcMode:shareable for the donor container",
                field="ipc_mode",
            )
        return Mount(str(theirs), "/dev/shm", options=_BIND)
    if mode == "shareable":
        if not directory.shm.is_mount():
            directory.shm.mkdir(exist_ok=True, mode=0o700)
            mount_tmpfs(directory.shm, f"mode=1777,size={size}")
        return Mount(str(directory.shm), "/dev/shm", options=_BIND)
    return shm_mount(size)
