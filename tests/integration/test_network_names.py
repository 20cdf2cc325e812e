"""Names between containers of a network, and names of the world, by aardvark-dns."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import NetworkFailed
from engine.network import ruleset
from engine.network.names import resolv_conf
from engine.network.nft import open_nftables
from engine.network.ruleset import OPEN_PORTS
from engine.snapshots.mount import mount_tmpfs, unmount
from tests.netns import Machine, close_server, ip, machine, query, serve, udp, upstream
from tests.network_home import Container, Home, make_home

A, PTR, AAAA = 1, 12, 28


@pytest.fixture
def host() -> Iterator[Machine]:
    with machine() as made:
        yield made


@pytest.fixture
def home(host: Machine, tmp_path: Path) -> Iterator[Home]:
    (tmp_path / "home").mkdir()
    mount_tmpfs(tmp_path / "home", "size=1m")
    try:
        with make_home(host, tmp_path / "home") as made:
            yield made
    finally:
        unmount(tmp_path / "home")


def gateway(container: Container) -> str:
    return str(container.attachments[0].network.gateway)


def test_name_alias_and_short_id_resolve_in_the_network_only(home: Home) -> None:
    one, two = home.network("one"), home.network("two")
    web, asking = home.container("web", one), home.container("asking", one)
    stranger = home.container("stranger", two)
    alias = replace(web.attachments[0], names=("web", "shop.internal", web.id[:12]))
    home.manager.attach(alias, web.id, web.peer.pid)

    def ask(container: Container, name: str, kind: int = A, server: str = "") -> str:
        return container.peer.inside(lambda: query(server or gateway(container), name, kind))

    for name in ("web", "WEB", "shop.internal", web.id[:12]):
        assert ask(asking, name) == web.address
        # glibc asks for both; "unknown" for one of them would end the search
        assert ask(asking, name, AAAA) == "nothing"
    assert ask(web, "asking") == asking.address
    reverse = ".".join(reversed(web.address.split("."))) + ".in-addr.arpa"
    assert b"web".hex() in ask(asking, reverse, PTR)
    for name in ("web", web.id[:12]):
        assert ask(stranger, name) == "unknown"
    # nor by asking the other network's resolver
    assert ask(stranger, "web", server=gateway(web)) == "ConnectionRefusedError"
    for port in OPEN_PORTS:
        direct = stranger.peer.inside(lambda p=port: udp(gateway(web), p, 0.5))  # type: ignore[misc]
        assert direct == "ConnectionRefusedError"


def test_a_container_in_two_networks_knows_both(home: Home) -> None:
    one, inner = home.network("one"), home.network("inner", internal=True)
    both = home.container("both", inner, one)
    web, db = home.container("web", one), home.container("db", inner)
    resolver = resolv_conf([inner, one], "").split()[1]
    assert resolver == str(one.gateway)
    assert both.peer.inside(lambda: query(resolver, "web")) == web.address
    assert both.peer.inside(lambda: query(resolver, "db")) == db.address
    assert db.peer.inside(lambda: query(gateway(db), "web")) == "unknown"
    assert web.peer.inside(lambda: query(gateway(web), "db")) == "unknown"


def test_other_names_are_asked_upstream_but_not_for_internal_networks(home: Home) -> None:
    """The machine's own /etc/resolv.conf names the upstream; here it is a server of ours."""
    outside, inner = home.network("one"), home.network("inner", internal=True)
    asking, locked = home.container("asking", outside), home.container("locked", inner)
    address = upstream()
    ip("addr", "add", f"{address}/32", "dev", "lo")
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    asked: list[bytes] = []

    def answer() -> None:
        while True:
            try:
                data, client = server.recvfrom(512)
            except OSError:
                return
            if not data:
                return
            asked.append(data)
            question = data[12 : data.index(b"\0", 12) + 5]
            head = data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("203.0.113.7")
            server.sendto(head + question + record, client)

    threading.Thread(target=answer, daemon=True).start()
    try:
        assert asking.peer.inside(lambda: query(gateway(asking), "example.org")) == "203.0.113.7"
        assert asking.peer.inside(lambda: query(gateway(asking), "nobody")) == "unknown"
        before = len(asked)
        assert before == 1
        assert locked.peer.inside(lambda: query(gateway(locked), "example.org")) == "unknown"
        # nor by going round the redirection to the servers that do forward
        for port in OPEN_PORTS:
            got = locked.peer.inside(lambda p=port: udp(gateway(locked), p, 0.5))  # type: ignore[misc]
            assert got == "ConnectionRefusedError"
        assert len(asked) == before
    finally:
        close_server(server)


def test_a_container_that_is_gone_resolves_no_more(home: Home) -> None:
    network = home.network()
    web, asking = home.container("web", network), home.container("asking", network)
    assert asking.peer.inside(lambda: query(gateway(asking), "web")) == web.address
    home.manager.detach(web.id)
    assert asking.peer.inside(lambda: query(gateway(asking), "web")) == "unknown"


def test_a_link_is_known_to_who_made_it_and_follows(home: Home) -> None:
    """Each time with another address; every name is answered once."""
    network, elsewhere = home.network("one"), home.network("two")
    inner = home.network("inner", internal=True)
    source, other = home.container("source", network, inner), home.container("other", network)
    mine = source.attachments[0]
    links = (("target", "db"), ("target", "other"), ("nobody", "x"), ("source", "me"))
    home.manager.attach(replace(mine, links=links), source.id, source.peer.pid)
    servers = home.manager.observe().name_servers

    def ask(container: Container, name: str, kind: int = A) -> str:
        return container.peer.inside(lambda: query(gateway(container), name, kind))

    assert [ask(source, name) for name in ("db", "x", "me")] == ["unknown"] * 3
    for _ in range(2):
        target = home.container("target", network, elsewhere)
        for name in ("db", "DB", "target"):
            assert ask(source, name) == target.address
            assert ask(source, name, AAAA) == "nothing"
            assert counted(source, name) == 1
        # Who has the name already keeps it, for all.
        assert ask(source, "other") == ask(target, "other") == other.address
        assert counted(source, "other") == counted(target, "other") == 1
        assert ask(other, "db") == "unknown"
        before = home.manager.observe().name_servers
        home.manager.ensure(network)
        assert home.manager.observe().name_servers == before != servers
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        changed = home.manager.repair({one.id for one in (source, other, target)})
        assert all("name server started" in text for text in changed) and changed
        assert ask(source, "db") == target.address
        home.manager.detach(target.id)
        assert ask(source, "db") == "unknown"
    target = home.container("target", network)
    home.manager.attach(mine, source.id, source.peer.pid)
    assert ask(source, "db") == "unknown"
    home.manager.attach(replace(mine, links=links), source.id, source.peer.pid)
    assert ask(source, "db") == target.address
    home.manager.detach(source.id, network.id)
    assert ask(target, "db") == "unknown"
    home.manager.attach(replace(mine, links=links), source.id, source.peer.pid)
    home.manager.repair({target.id, other.id})  # the source ended unseen
    assert ask(target, "db") == "unknown"
    assert not list((home.config.network_dir / "names/links").iterdir())


def counted(container: Container, name: str) -> int:
    """How many addresses a name has, of what the container is told."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))

    def ask() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.connect((gateway(container), 53))
            client.send(b"\x12\x34\1\0\0\1" + bytes(6) + labels + b"\0\0\1\0\1")
            return int.from_bytes(client.recv(512)[6:8], "big")

    return container.peer.inside(ask)


def test_no_query_is_lost_while_containers_come_and_go(home: Home) -> None:
    """New sockets, and one that stays as nginx's resolver does."""
    network = home.network()
    home.container("web", network)
    asking = home.container("asking", network)
    coming = [home.attachment(network, f"n{number}") for number in range(10)]
    peers = [home.machine.peer() for _ in coming]
    stop = threading.Event()
    answers: list[str] = []
    steady: list[bytes] = []

    def ask() -> None:
        def keep_asking() -> None:
            message = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\3web\0\0\1\0\1"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kept:
                kept.settimeout(2)
                kept.connect((gateway(asking), 53))
                while not stop.is_set():
                    answers.append(query(gateway(asking), "web"))
                    kept.send(message)
                    steady.append(kept.recv(512)[-4:])

        asking.peer.inside(keep_asking)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for number, (attachment, peer) in enumerate(zip(coming, peers, strict=True)):
            home.manager.attach(attachment, f"c{number}", peer.pid)
            name = f"n{number}"
            # known to all when attach returns
            got = asking.peer.inside(lambda name=name: query(gateway(asking), name))  # type: ignore[misc]
            assert got == str(attachment.address)
            if number % 2:
                home.manager.detach(f"c{number}")
    finally:
        stop.set()
        thread.join()
    assert len(answers) > 100
    assert len(set(answers)) == 1
    assert len(set(steady)) == 1


def test_a_dead_server_is_replaced(home: Home) -> None:
    network = home.network()
    web, asking = home.container("web", network), home.container("asking", network)
    for pid in home.manager.observe().name_servers:
        os.kill(pid, signal.SIGKILL)
    assert asking.peer.inside(lambda: query(gateway(asking), "web", timeout=0.3)) == "TimeoutError"
    changed = home.manager.repair({web.id, asking.id})
    assert [text for text in changed if "name server started" in text]
    assert asking.peer.inside(lambda: query(gateway(asking), "web")) == web.address
    assert home.manager.repair({web.id, asking.id}) == ()


def test_names_of_a_home_from_before_move_into_memory(home: Home) -> None:
    """Also with a container that comes before the repair; then a full disk keeps no name."""
    network, inner = home.network("one"), home.network("inner", internal=True)
    web, asking = home.container("web", network, inner), home.container("asking", network)
    with in_memory(home):
        assert home.manager.observe().name_servers == ()
        late = home.container("late", network)
        for name, container in (("web", web), ("late", late)):
            assert asking.peer.inside(lambda n=name: query(gateway(asking), n)) == container.address  # type: ignore[misc]
        home.manager.repair({web.id, asking.id, late.id})
        there = web.attachments[1]
        assert web.peer.inside(lambda: query(str(there.network.gateway), "web")) == str(
            there.address
        )
        with full(home.config.home):
            home.manager.detach(web.id)
        assert asking.peer.inside(lambda: query(gateway(asking), "web")) == "unknown"
        assert asking.peer.inside(lambda: query(gateway(asking), "late")) == late.address


@contextmanager
def in_memory(home: Home) -> Iterator[None]:
    folder = home.config.names_dir
    assert not os.path.ismount(folder)
    for _ in range(2):  # once more does nothing
        home.manager.keep_names_on(lambda at: mount_tmpfs(at, "mode=0700,size=1m"))
    try:
        yield
    finally:
        home.manager.release_all()
        unmount(folder)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """No room on the disk it lies on: a mount of its own."""
    assert os.path.ismount(folder)
    with (folder / "full").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    try:
        yield
    finally:
        (folder / "full").unlink()


def test_the_machines_own_dns_server_is_not_in_the_way(home: Home) -> None:
    server = serve(53, "mine")
    try:
        web = home.container("web", home.network())
        assert web.peer.inside(lambda: query(gateway(web), "web")) == web.address
    finally:
        for one in server:
            close_server(one)


def test_a_taken_port_is_an_error_that_says_so_and_leaves_nothing(home: Home) -> None:
    network = home.network()
    web = home.container("web", network)
    idle = free_the_idle_port(home)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind((str(network.gateway), idle))
        attachment = home.attachment(network, "late")
        peer = home.machine.peer()
        with pytest.raises(NetworkFailed, match="does not answer") as caught:
            home.manager.attach(attachment, "late", peer.pid)
        assert f"hold udp port {idle}" in caught.value.hint
        assert "eth0" not in peer.ip("-o", "link")
        assert [one.id for one in home.manager.observe().containers] == [web.id]
        assert web.peer.inside(lambda: query(gateway(web), "late")) == "unknown"
        assert web.peer.inside(lambda: query(gateway(web), "web")) == web.address
    home.manager.attach(attachment, "late", peer.pid)
    assert web.peer.inside(lambda: query(gateway(web), "late")) == str(attachment.address)


def free_the_idle_port(home: Home) -> int:
    """End the server that queries are not turned to; its port."""
    with open_nftables() as nft:
        objects = nft.query(ruleset.list_names(home.config.nft_table, internal=False))
    active = ruleset.parse_names(objects or ())
    (idle,) = set(OPEN_PORTS) - {active}
    for pid in home.manager.observe().name_servers:
        if str(idle).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            pidfd = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            select.select([pidfd], [], [], 5)
            os.close(pidfd)
    return idle
