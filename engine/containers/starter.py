"""The making of a start: the mounted root file system, config.json, ports, conmon and the runtime.

What came before (folders, an older start's clean-up, volumes, namespaces that are shared) and what
has to be undone when it fails is left to lifecycle.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from engine.config import EngineConfig
from engine.containers.attempts import Attempt, Started
from engine.containers.config import command, container_spec, process_spec
from engine.containers.joined import Joined
from engine.containers.layout import ContainerDir
from engine.containers.plumbing import Network, Plumbing
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput, NoSpace, RuntimeFailed
from engine.network.spec import Attachment
from engine.runtime.conmon import Conmon, Supervised
from engine.runtime.oci_runtime import OCIRuntime, command_error
from engine.runtime.spec import Mount, build_spec
from engine.runtime.users import resolve_user
from engine.snapshots.protocol import Snapshotter


@dataclass(frozen=True, slots=True)
class Given:
    """What one start was given besides the settings; good while its block lasts."""

    size: tuple[int, int] | None
    attachments: Sequence[Attachment]
    mounted: tuple[Mount, ...]
    shared: Joined


class Starter:
    """The caller holds the directory's lock, and cleans up after what raises."""

    def __init__(
        self,
        config: EngineConfig,
        snapshots: Snapshotter,
        runtime: OCIRuntime,
        network: Network | None,
    ) -> None:
        self._config = config
        self._snapshots = snapshots
        self._runtime = runtime
        self._network = network
        self._conmon = Conmon(runtime)

    def start(
        self,
        settings: ContainerSettings,
        directory: ContainerDir,
        attempt: Attempt,
        given: Given,
    ) -> Started:
        with ExitStack() as held:
            plumbing = None
            if given.attachments:
                network = self._networking(settings, given.attachments)
                plumbing = Plumbing(network, settings.id, given.attachments)
                held.callback(plumbing.close)
            return self._run(settings, directory, attempt, given, plumbing)

    def _run(
        self,
        settings: ContainerSettings,
        directory: ContainerDir,
        attempt: Attempt,
        given: Given,
        plumbing: Plumbing | None,
    ) -> Started:
        (directory.bundle / "oom").unlink(missing_ok=True)
        self._snapshots.unmount(directory.rootfs)
        self._snapshots.mount(directory.snapshot, directory.rootfs)
        if plumbing is not None:
            given.shared.namespaces["network"] = plumbing.path()
        self._write_config(settings, directory, given)
        supervised = Supervised(
            id=settings.id,
            bundle=directory.bundle,
            exit_dir=attempt.folder,
            log=directory.log / "current",
            tty=settings.tty,
            stdin=settings.open_stdin,
            stdin_once=settings.stdin_once,
        )
        try:
            if settings.ports:
                network = self._networking(settings, given.attachments)
                with network.reserve(settings.ports) as held:
                    created, ports = self._conmon.create(supervised, held.fds), held.ports
            else:
                created, ports = self._conmon.create(supervised), ()
            if plumbing is not None:
                plumbing.wait()
            if ports:
                leading = next(
                    (one for one in given.attachments if one.gateway), given.attachments[0]
                )
                network.publish(settings.id, leading.address, ports)
            started = attempt.write_started(created, ports)
            self._runtime.start(settings.id)
        except RuntimeFailed as error:
            raise _explained(error, settings) from error
        return started

    def _networking(
        self, settings: ContainerSettings, attachments: Sequence[Attachment]
    ) -> Network:
        if self._network is None or not attachments:
            raise InvalidInput(
                f"container {settings.id} has no network",
                hint="put it on a network, or publish no ports",
                field="ports",
            )
        return self._network

    def _write_config(
        self, settings: ContainerSettings, directory: ContainerDir, given: Given
    ) -> None:
        user = resolve_user(settings.user, directory.rootfs, settings.host.group_add)
        process = process_spec(settings, user, command(settings), tty=settings.tty, size=given.size)
        spec = container_spec(
            self._config,
            settings,
            directory,
            process,
            cgroup=self._runtime.cgroup(settings.id),
            attachments=given.attachments,
            mounted=given.mounted,
            joined=given.shared,
        )
        (directory.bundle / "config.json").write_text(json.dumps(build_spec(spec)))


@contextmanager
def room(id: str) -> Iterator[None]:
    """A full disk met in the block is NoSpace with the container's name."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _no_space(id) from error


def _no_space(id: str) -> NoSpace:
    return NoSpace(f"no space left for container {id}", hint="free some disk space", id=id)


def _explained(error: RuntimeFailed, settings: ContainerSettings) -> Exception:
    """A command that is not there is the user's to mend, with the code a shell would give."""
    if os.strerror(errno.ENOSPC).lower() in error.message.lower():
        return _no_space(settings.id)
    return command_error(error, settings.args, settings.id) or error
