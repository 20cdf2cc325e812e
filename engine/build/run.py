"""RUN: one command on a mounted snapshot, with the network, and without a trace of ours in it.

hosts, resolv.conf and hostname are bind mounted, their mount points taken away again; all steps of
a build share one network namespace. Leaves keys, the cache and the layer to
engine.build.solver, processes and cgroups to engine.runtime.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.build.metadata import command
from engine.build.ports import BuildEngine, RunOptions
from engine.build.report import Output
from engine.build.state import StageState
from engine.build.workspace import Workspace, release_network
from engine.containers.etc import write_etc
from engine.dockerfile.instructions import Run
from engine.network.addresses import mac_for
from engine.network.held import HeldNamespace
from engine.network.spec import Attachment
from engine.runtime.rootfs import lookup, opened
from engine.runtime.spec import Mount, ProcessSpec, environment, shm_mount
from engine.runtime.steps import Cancellation, Step, run_step
from engine.runtime.users import resolve_user

HOSTNAME = "build"
_SCRIPT = "/dev/pipes/script"
# What Stubs may have to copy up: the folder of the files that are mounted over.
_ETC = "etc"


class Uplink:
    """The build's network: an address and a namespace from the first step that needs them to the
    end. Between two steps nothing runs in it."""

    def __init__(self, engine: BuildEngine, workspace: Workspace) -> None:
        self._engine = engine
        self._workspace = workspace
        self._attachment: Attachment | None = None
        self._namespace: HeldNamespace | None = None

    def attachments(self) -> tuple[Attachment, ...]:
        """One, or none where the engine has no network. Raises NoSpace."""
        engine = self._engine
        if engine.network is None or engine.networks is None or engine.addresses is None:
            return ()
        if self._attachment is None:
            network = engine.network()
            address = engine.addresses.acquire(network, self._workspace.owner)
            self._attachment = Attachment(network, address, mac_for(address))
        return (self._attachment,)

    def namespace(self) -> str:
        """The file of the namespace a step joins; "" where there is no network. Made and plumbed
        at the first step's call, with the bridge where it is missing. Raises NetworkFailed."""
        engine = self._engine
        if self._namespace is None and self.attachments():
            assert engine.networks is not None
            held = HeldNamespace()
            try:
                for attachment in self.attachments():
                    engine.networks.attach(attachment, self._workspace.owner, held.pid)
            except BaseException:
                held.close()
                raise
            self._namespace = held
        return self._namespace.path if self._namespace else ""

    def close(self) -> None:
        if self._namespace is not None:
            self._namespace.close()
            self._namespace = None
        if self._attachment is not None:
            release_network(self._workspace, self._engine)
            self._attachment = None


def run_command(
    engine: BuildEngine,
    workspace: Workspace,
    key: str,
    instruction: Run,
    state: StageState,
    uplink: Uplink,
    output: Output,
    cancellation: Cancellation,
    options: RunOptions,
) -> int:
    """Run the instruction in the active snapshot `key`; its exit code. Nothing stays mounted.

    Raises Cancelled, InvalidInput (USER), RuntimeFailed, NetworkFailed, MountFailed.
    """
    root = workspace.make("root")
    connected = options.connected and instruction.network != "none"
    attachments = uplink.attachments() if connected else ()
    mounts = write_etc(workspace.make("etc"), HOSTNAME, attachments)
    if options.hosts:
        with (workspace.make("etc") / "hosts").open("a") as file:
            file.writelines(f"{address}\t{name}\n" for name, address in options.hosts)
    argv = command(instruction, state.config)
    if script := instruction.script:
        path = workspace.folder / "script"
        path.write_text(script.text)
        path.chmod(0o755)
        mounts = (*mounts, Mount(str(path), _SCRIPT, options=("rbind", "rprivate", "ro")))
        argv = (_SCRIPT,)
    etc: os.stat_result | None = None
    engine.snapshots.mount(key, root, volatile=True)
    try:
        with opened(root) as folder:
            etc = lookup(folder, _ETC)
        user = resolve_user(state.config.user, root)
        given = tuple(f"{k}={v}" for k, v in state.scope.environment(state.env).items())
        process = ProcessSpec(
            args=argv,
            env=environment((*given, *state.config.env), user=user),
            cwd=state.config.working_dir or "/",
            user=user,
            ulimits=options.ulimits,
        )
        return run_step(
            engine.runtime,
            Step(
                key,
                root,
                process,
                hostname=HOSTNAME,
                mounts=mounts,
                limits=options.limits,
                shm=shm_mount() if options.shm_bytes is None else shm_mount(options.shm_bytes),
                network=uplink.namespace() if attachments else "",
            ),
            output.write,
            cancel=cancellation,
        )
    finally:
        engine.snapshots.unmount(root)
        output.flush()
        if etc is not None:
            drop_untouched(engine.snapshots.upper(key) / _ETC, etc)


def drop_untouched(folder: Path, before: os.stat_result) -> None:
    """Remove a folder of an upper that is there only because something was mounted below it: empty
    and just as it was. Otherwise RUN true would make a layer."""
    try:
        status = folder.lstat()
        same = (
            stat.S_ISDIR(status.st_mode)
            and (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
            == (before.st_mode, before.st_uid, before.st_gid, before.st_mtime_ns)
            and not any(name.endswith(".opaque") for name in os.listxattr(folder))
        )
        if same:
            folder.rmdir()
    except FileNotFoundError:
        return
    except OSError:
        return  # not empty: something was written there


@contextmanager
def cancellation_of(event: threading.Event) -> Iterator[Cancellation]:
    """The runtime waits on a descriptor, the caller sets an event: one thread joins them."""
    cancellation = Cancellation()
    over = threading.Event()

    def watch() -> None:
        # The wait ends the moment the event is set; the timeout only lets the thread end.
        while not over.is_set():
            if event.wait(0.2):
                cancellation.cancel()
                return

    threading.Thread(target=watch, name="build-cancellation", daemon=True).start()
    try:
        yield cancellation
    finally:
        over.set()
