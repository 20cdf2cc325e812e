"""A TCP port of this machine, served again on 127.0.0.1 of another network namespace.

So that a daemon in a network namespace of its own reaches a registry of the tests under the very
address the tests use.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.netns import Peer, close_server


@contextmanager
def relayed(peer: Peer, address: str) -> Iterator[None]:
    """`address` is "127.0.0.1:port", outside and inside alike."""
    host, _, port = address.partition(":")
    listener = peer.inside(lambda: socket.create_server((host, int(port)), backlog=64))
    threading.Thread(target=_accept, args=(listener, (host, int(port))), daemon=True).start()
    try:
        yield
    finally:
        close_server(listener)


def _accept(listener: socket.socket, target: tuple[str, int]) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # closed: the end
        threading.Thread(target=_serve, args=(client, target), daemon=True).start()


def _serve(client: socket.socket, target: tuple[str, int]) -> None:
    with ExitStack() as stack:
        stack.enter_context(client)
        try:
            server = stack.enter_context(socket.create_connection(target))
        except OSError:
            return  # what it leads to is gone: the client sees a closed connection
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(1 << 18):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return  # either side has gone away; the other one ends by itself
