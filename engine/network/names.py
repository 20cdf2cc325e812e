"""Names of containers, answered by aardvark-dns; which server is asked is turned by `ruleset`.

What was learnt from aardvark-dns 1.4.0, and what is done about it here:
- SIGHUP makes it close and bind every socket anew: for 3 to 6 ms each start of any container
  would have refused or lost queries of *all* containers (95 of 700 under load; glibc waits 5 s for
  a lost one, or gives up at once). So a change starts a second server beside the first, and when
  it answers, one nftables transaction turns port 53 to it. The first stays, for the queries it is
  still forwarding, until the next change takes its place.
- It then needs no port 53, which the machine's own DNS server may hold on every address.
- One line it cannot read ends it: names are checked where they are made (`spec`).
- It forwards what it does not know, unless AARDVARK_NO_PROXY is in its environment, whatever the
  value; a name without a dot is never forwarded. Internal networks must not leak queries, so they
  are asked from a second kind of server ("closed") that has it. The open kind knows the internal
  networks too: a container in one of each asks there and finds the names of both.
- It answers a container with the names of every network that has the container's id in it, and
  anybody at all with the names of the network whose gateway was asked: `ruleset` lets each
  network ask its own gateway only. Links (`aliases`) rest on the first.
- It has no TCP, and daemonises before it has bound: ready is when it answers.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from engine.errors import NetworkFailed
from engine.network.aliases import NOWHERE, Linked, zones_of
from engine.network.records import write_aside
from engine.network.ruleset import CLOSED_PORTS, OPEN_PORTS
from engine.network.spec import Attachment, NetworkSpec

BINARIES = (Path("/usr/lib/podman/aardvark-dns"), Path("/usr/libexec/podman/aardvark-dns"))
_READY_SECONDS = 3.0
_QUESTION = struct.pack(">HHHHHH", 0x7173, 0x0100, 1, 0, 0, 0) + b"\x05ready\0\0\x01\0\x01"


@dataclass(frozen=True, slots=True)
class Starting:
    """A server on its way; `wait` gives the port it answers at."""

    port: int
    folder: Path
    gateways: tuple[IPv4Address, ...]
    launcher: subprocess.Popen[bytes]

    def wait(self) -> int:
        """Raises NetworkFailed when it ends, or answers on some gateway not at all."""
        deadline = time.monotonic() + _READY_SECONDS
        try:
            _, complaint = self.launcher.communicate(timeout=_READY_SECONDS)
        except subprocess.TimeoutExpired as error:
            self.launcher.kill()
            self.launcher.communicate()
            raise NetworkFailed(f"aardvark-dns did not start: {self.folder}") from error
        for gateway in self.gateways:
            while not _answers(gateway, self.port):
                if time.monotonic() > deadline or not _running(self.folder):
                    raise NetworkFailed(
                        f"aardvark-dns does not answer at {gateway}:{self.port}: "
                        f"{complaint.decode(errors='replace').strip()}",
                        hint=f"something else may hold udp port {self.port}",
                    )
                time.sleep(0.0005)  # it says nowhere that it has bound
        return self.port

    def abandon(self) -> None:
        """It is not wanted after all: nothing was turned to it."""
        self.launcher.communicate()
        _end(self.folder)


class Names:
    """Zones and servers below `root`; the caller holds the home's lock.

    All of it can be told again from the records, so it may lie in memory: each change of a name
    writes a folder anew, which a full disk must not prevent."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._zones = root / "zones"
        self._links = root / "links"

    def has(self, network: NetworkSpec) -> bool:
        """Whether it was told of the network since its folder was made."""
        return self._zone(network).exists()

    def put_network(self, network: NetworkSpec) -> None:
        """Idempotent; containers already in the zone stay."""
        self._write(network, self._lines(network))

    def drop_network(self, network: NetworkSpec) -> None:
        self._zone(network).unlink(missing_ok=True)

    def put(self, container_id: str, attachment: Attachment) -> None:
        """What the container is called on a network, and what it calls others there."""
        network = attachment.network
        linked = Linked(network.id, container_id, attachment.links)
        if linked.links:
            self._links.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_aside(self._links / linked.name, linked.text())
        else:
            (self._links / linked.name).unlink(missing_ok=True)
        lines = [line for line in self._lines(network) if not _of(line, container_id)]
        if attachment.names:
            names = ",".join(dict.fromkeys(attachment.names))
            servers = f" {','.join(attachment.dns)}" if attachment.dns else ""
            lines.append(f"{container_id} {attachment.address}  {names}{servers}")
        self._write(network, lines)

    def drop(self, container_id: str, network: NetworkSpec) -> None:
        (self._links / Linked(network.id, container_id, ()).name).unlink(missing_ok=True)
        lines = self._lines(network)
        kept = [line for line in lines if not _of(line, container_id)]
        if kept != lines:
            self._write(network, kept)

    def start(self, internal: bool, active: int | None) -> Starting | None:
        """Begin a server with the zones as they are; None when the `active` one has them.

        `active` is the port that queries are turned to now. Nothing is changed for them yet.
        Without networks of the kind its servers end.
        """
        zones = self._wanted(internal)
        if not zones:
            for slot in CLOSED_PORTS if internal else OPEN_PORTS:
                _end(self._slot(slot))
            return None
        if active is not None and _running(self._slot(active)) and self._has(active, zones):
            return None
        ports = CLOSED_PORTS if internal else OPEN_PORTS
        port = ports[1] if active == ports[0] else ports[0]
        folder = self._slot(port)
        _end(folder)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        for name, text in zones.items():
            (folder / name).write_text(text)
        launcher = subprocess.Popen(
            [str(_binary()), "-c", str(folder), "-p", str(port), "run"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env={"AARDVARK_NO_PROXY": "1"} if internal else {},
            start_new_session=True,  # Ctrl-C at our terminal is not meant for it
        )
        bound = (text.split("\n", 1)[0] for text in zones.values())
        gateways = tuple(IPv4Address(address) for address in bound if address != NOWHERE)
        return Starting(port, folder, gateways, launcher)

    def pids(self) -> dict[int, int]:
        """Servers that run, by port."""
        found = ((port, _running(self._slot(port))) for port in (*OPEN_PORTS, *CLOSED_PORTS))
        return {port: pid for port, pid in found if pid is not None}

    def clear(self) -> None:
        """End every server, also one whose folder is gone, and forget every name."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with _process(int(entry.name), self._root) as found:
                    if found:
                        _kill(found[1])
        if os.path.ismount(self._root):
            for entry in self._root.iterdir():
                shutil.rmtree(entry)
        elif self._root.exists():
            shutil.rmtree(self._root)

    def move(self, mount: Callable[[Path], None]) -> None:
        """Lie on what `mount` mounts on its folder. Servers of before end: nothing is known."""
        if not os.path.ismount(self._root):
            self.clear()
            self._root.mkdir(mode=0o700, parents=True)
            mount(self._root)

    def _slot(self, port: int) -> Path:
        return self._root / str(port)

    def _zone(self, network: NetworkSpec) -> Path:
        return self._zones / ("closed" if network.internal else "open") / network.id

    def _lines(self, network: NetworkSpec) -> list[str]:
        try:
            return self._zone(network).read_text().splitlines()[1:]
        except FileNotFoundError:
            return []

    def _write(self, network: NetworkSpec, lines: Iterable[str]) -> None:
        path = self._zone(network)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_aside(path, "".join(f"{line}\n" for line in (str(network.gateway), *lines)))

    def _wanted(self, internal: bool) -> dict[str, str]:
        """The zones a kind of server is to have: none when it is not needed."""
        wanted = _texts(self._zones / ("closed" if internal else "open"))
        if wanted and not internal:
            wanted |= _texts(self._zones / "closed")
        linked = [Linked.parse(name, text) for name, text in _texts(self._links).items()]
        return wanted | zones_of(wanted, linked)

    def _has(self, port: int, zones: dict[str, str]) -> bool:
        folder = self._slot(port)
        present = {path.name for path in folder.iterdir()} - {"aardvark.pid"}
        return present == set(zones) and all(
            (folder / name).read_text() == text for name, text in zones.items()
        )


def resolv_conf(networks: Iterable[NetworkSpec], host_text: str) -> str:
    """The text of a container's /etc/resolv.conf; `host_text` is the host's.

    The resolver is the gateway of the first network with a way out, else of the first. Search
    domains and options of the host are kept. Without networks the host's text itself is given,
    less servers on its loopback, where no container gets.
    """
    chosen = sorted(networks, key=lambda network: network.internal)
    kept = [line.split() for line in host_text.splitlines()]
    if not chosen:
        return "".join(
            f"{' '.join(words)}\n"
            for words in kept
            if words and not (words[0] == "nameserver" and _is_loopback(words[-1]))
        )
    lines = [f"nameserver {chosen[0].gateway}"]
    lines += [" ".join(words) for words in kept if words and words[0] in ("search", "domain")]
    options = [
        option
        for words in kept
        if words and words[0] == "options"
        for option in words[1:]
        if not option.startswith("ndots:")
    ]
    # A container's name is asked for as it is before any search domain is put behind it.
    lines.append(" ".join(["options", *options, "ndots:0"]))
    return "".join(f"{line}\n" for line in lines)


def _texts(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        return {}
    return {p.name: p.read_text() for p in folder.iterdir() if not p.name.startswith(".")}


def _is_loopback(address: str) -> bool:
    try:
        return IPv4Address(address).is_loopback
    except AddressValueError:
        return address == "::1"


def _of(line: str, container_id: str) -> bool:
    return line.split(" ", 1)[0] == container_id


def _binary() -> Path:
    for path in BINARIES:
        if path.exists():
            return path
    raise NetworkFailed(
        f"aardvark-dns is missing: {BINARIES[0]}", hint="install the package aardvark-dns"
    )


def _answers(gateway: IPv4Address, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(0.5)
        try:
            asker.connect((str(gateway), port))
            asker.send(_QUESTION)
            return bool(asker.recv(512))
        except OSError:
            return False


def _running(folder: Path) -> int | None:
    """The pid of the server that reads `folder`, when there is one and it has not ended."""
    with _server(folder) as found:
        return found[0] if found else None


def _end(folder: Path) -> None:
    with _server(folder) as found:
        if found:
            _kill(found[1])


def _kill(pidfd: int) -> None:
    # It has no state to put in order, and SIGTERM can be late.
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    _ended(pidfd, milliseconds=5000)


@contextmanager
def _server(folder: Path) -> Iterator[tuple[int, int] | None]:
    try:
        pid = int((folder / "aardvark.pid").read_text())
    except (FileNotFoundError, ValueError):
        yield None
        return
    with _process(pid, folder) as found:
        yield found


@contextmanager
def _process(pid: int, folder: Path) -> Iterator[tuple[int, int] | None]:
    """(pid, pidfd) if it is a server of `folder` or below: by pidfd, as pids are used again."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield (pid, pidfd) if _serves(pid, folder) and not _ended(pidfd, 0) else None
    finally:
        os.close(pidfd)


def _serves(pid: int, folder: Path) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    if len(arguments) < 3 or not arguments[0].endswith(b"/aardvark-dns"):
        return False
    return Path(os.fsdecode(arguments[2])).is_relative_to(folder)


def _ended(pidfd: int, milliseconds: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(milliseconds))
