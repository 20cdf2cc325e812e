"""How much the API takes at once: connections, idle ones, open files.

Headers and JSON bodies are bounded where they are parsed (server.MAX_HEADER, call.MAX_JSON),
streams by their readers (hijack, source, rooms).
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from contextlib import suppress

from aiohttp import web

# Without a request for so long, or with one that is not finished: docker's own clients dial again.
IDLE_SECONDS = 180.0
HANDSHAKE_SECONDS = 10.0
# Of a TCP connection that says nothing: looked after from 30 s on, given up after 30 s more.
KEEPALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
MOST_CONNECTIONS = 4096
_MOST_FILES = 65536
# A follower has its socket and its log's file; the rest is the process's own.
_FILES_A_CONNECTION, _OWN_FILES = 3, 512


def raise_files() -> int:
    """More open files, as far as the hard limit goes; how many connections they are enough for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return max(64, min(MOST_CONNECTIONS, (soft - _OWN_FILES) // _FILES_A_CONNECTION))


class Door:
    """The protocols of new connections: aiohttp's, and a refusal where there are `most` already."""

    def __init__(self, server: web.Server, most: int) -> None:
        self._server = server
        self._most = most

    def __call__(self) -> asyncio.Protocol:
        if len(self._server.connections) >= self._most:
            return _Full()
        return self._server()


class _Full(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        body = json.dumps({"message": "too many connections to the engine at once"}).encode()
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        transport.close()
