"""Debian's dockerd on a state of its own: the reference Quayside is compared with.

It lives in network, mount and process namespaces of its own, so its bridge, its iptables chains
(it sets FORWARD to drop), its mounts and every process of its containers are gone with it, however
it ends. Its socket, its files and its cgroup are this machine's; `running_dockerd` removes them.

    with running_dockerd(folder, mirror=registry.url, relays=[registry.address]) as dockerd:
        subprocess.run(["docker", "ps"], env={**os.environ, "DOCKER_HOST": dockerd.host})
        dockerd.inside("curl", "127.0.0.1:8080")   # the command that asks a published port
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.netns import Peer
from tests.relay import relayed

# IPv6 is off: ports are published on IPv4 only, as Quayside's are.
_ENTER = """
ip link set lo up
echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
exec dockerd "$@"
"""


@dataclass(frozen=True, slots=True)
class Dockerd:
    """`pid` is dockerd's own, as this machine counts."""

    folder: Path
    pid: int

    @property
    def socket(self) -> Path:
        return self.folder / "docker.sock"

    @property
    def host(self) -> str:
        """DOCKER_HOST."""
        return f"unix://{self.socket}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def inside(self, *command: str) -> tuple[str, ...]:
        """`command` in its network namespace, where its published ports are."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net", *command)

    def log(self) -> str:
        return (self.folder / "dockerd.log").read_text(errors="replace")


@contextmanager
def running_dockerd(
    folder: Path, *, mirror: str = "", relays: Sequence[str] = (), options: Sequence[str] = ()
) -> Iterator[Dockerd]:
    """A dockerd that answers; killed with all its containers at the end, `folder` emptied.

    `mirror` (a URL) stands for docker.io; `relays` are addresses on this machine's 127.0.0.1 it
    may reach; `options` go to its command line. `folder` should be short: it holds a socket.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cgroup = f"dockerd-{secrets.token_hex(4)}"
    command = [
        *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("--propagation", "private", "sh", "-c", _ENTER, "dockerd"),
        *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
        *("--pidfile", str(folder / "pid"), "--host", f"unix://{folder / 'docker.sock'}"),
        *("--group", "root", "--cgroup-parent", cgroup, "--bip", "10.127.0.1/16"),
        *("--default-address-pool", "base=10.126.0.0/16,size=24"),
        *("--insecure-registry", "127.0.0.0/8", *options),
    ]
    if mirror:
        command += ["--registry-mirror", mirror]
    with ExitStack() as stack:
        stack.callback(_clean, folder, cgroup)
        log = stack.enter_context((folder / "dockerd.log").open("wb"))
        environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "HOME": str(folder)}
        process = stack.enter_context(
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        )
        stack.callback(process.kill)
        dockerd = Dockerd(folder, _wait_for(process, folder))
        peer = Peer(process)
        for address in relays:
            stack.enter_context(relayed(peer, address))
        yield dockerd


def _wait_for(process: subprocess.Popen[bytes], folder: Path) -> int:
    """Its pid, once its socket accepts."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.connect(str(folder / "docker.sock"))
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            return int(children.split()[0])
        time.sleep(0.02)
    raise AssertionError(f"dockerd did not start:\n{(folder / 'dockerd.log').read_text()}")


def _clean(folder: Path, cgroup: str) -> None:
    """What the namespaces do not take along."""
    hierarchies = Path("/sys/fs/cgroup")
    for top in (*hierarchies.glob(f"*/{cgroup}"), *hierarchies.glob(cgroup)):
        for path in sorted(top.glob("**/"), reverse=True):
            _remove_cgroup(path)
    shutil.rmtree(folder)


def _remove_cgroup(path: Path) -> None:
    """Its processes were killed; the kernel may still be burying them."""
    deadline = time.monotonic() + 10
    while True:
        try:
            path.rmdir()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
        for pid in (path / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.01)
