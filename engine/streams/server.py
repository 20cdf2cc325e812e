"""engined's internal socket: web connects, shows a one-use ticket, and gets that one stream.

Only root and web's user may connect (SO_PEERCRED, and the socket's own mode). A ticket binds a
user, a session, an action and a target, so a connection cannot ask for anything else. What the
streams say is in logs.py, builds.py, terminals.py, stats.py, images.py and files.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import socket
import struct
from pathlib import Path
from typing import Any

from django.db import DatabaseError

from engine.config import EngineConfig
from engine.containers.watch import FolderWatcher
from engine.errors import NotFound, QuaysideError
from engine.models import StreamTicket
from engine.services.orm import orm
from engine.services.tickets import ticket_redeem
from engine.streams import builds, files, images, logs, stats, viewer
from engine.streams.client import socket_path
from engine.streams.framing import MAX_PAYLOAD, FrameKind, FrameStream, parse_json
from engine.streams.hub import hub
from engine.streams.terminals import Terminals

logger = logging.getLogger(__name__)

OPEN_SECONDS = 10.0
_UCRED = struct.Struct("3i")


async def serve(config: EngineConfig, stop: asyncio.Event) -> None:
    """Serve until `stop`; running terminals go on in conmon and are found again at the start."""
    path = socket_path(config)
    web = _web_user()
    watcher = FolderWatcher()
    terminals = Terminals(config, watcher)
    await terminals.adopt()
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(config, watcher, terminals, FrameStream(reader, writer))
        if _peer_uid(writer) not in {0, web.pw_uid if web else 0}:
            logger.warning("refused uid %d on %s", _peer_uid(writer), path)
            writer.close()
            return
        task = asyncio.create_task(connection.run())
        connections.add(task)
        task.add_done_callback(connections.discard)

    listening = _listen(path, web)
    server = await asyncio.start_unix_server(connected, sock=listening, limit=2 * MAX_PAYLOAD)
    beside = [asyncio.create_task(hub.run()), asyncio.create_task(terminals.run())]
    try:
        await stop.wait()
    finally:
        server.close()
        path.unlink(missing_ok=True)
        running = [*connections, *beside]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await terminals.close()
        watcher.close()


def _web_user() -> pwd.struct_passwd | None:
    """The user web runs as; None when this machine has none (all of ours run as root then)."""
    try:
        return pwd.getpwnam(os.environ.get("QUAYSIDE_WEB_USER", "quayside"))
    except KeyError:
        return None


def _listen(path: Path, web: pwd.struct_passwd | None) -> socket.socket:
    """Bound under another name and moved into place, so that nobody connects before its mode is
    set and a dead predecessor's socket goes."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(aside))
    os.chown(aside, 0, web.pw_gid if web else 0)
    aside.chmod(0o660)
    listening.listen(256)
    aside.rename(path)
    return listening


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    peer = writer.get_extra_info("socket").getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size
    )
    uid: int = _UCRED.unpack(peer)[1]
    return uid


class Connection:
    """One connection: its ticket, then its stream, then an `end` unless web hung up first."""

    def __init__(
        self,
        config: EngineConfig,
        watcher: FolderWatcher,
        terminals: Terminals,
        stream: FrameStream,
    ) -> None:
        self._config = config
        self._watcher = watcher
        self._terminals = terminals
        self._stream = stream

    async def run(self) -> None:
        try:
            await self._end(await self._serve())
        except (ConnectionError, TimeoutError):
            pass  # web is gone, and with it whoever looked
        except QuaysideError as error:
            await self._end({"code": 4404, "reason": "gone", "error": error.as_dict()})
        except DatabaseError:
            logger.exception("a stream ended for want of the database")
            await self._end({"code": 1012, "reason": "engine-away", "again": True})
        except asyncio.CancelledError:
            await self._end({"code": 1012, "reason": "restart", "again": True})
            raise
        except Exception:
            logger.exception("a stream failed")
            await self._end({"code": 1011, "reason": "failed", "again": True})
        finally:
            await self._stream.close()

    async def _serve(self) -> dict[str, Any]:
        """Run the stream that the first frame's ticket names; its `end`."""
        async with asyncio.timeout(OPEN_SECONDS):
            frame = await self._stream.read()
        if frame is None:
            raise ConnectionResetError("closed before its ticket")
        kind, payload = frame
        request = parse_json(payload) if kind is FrameKind.JSON else {}
        ticket = await orm(ticket_redeem, str(request.get("ticket", "")))
        match ticket.action:
            case StreamTicket.Action.LOGS:
                return await logs.stream(
                    self._config, self._watcher, self._stream, ticket.target, request
                )
            case StreamTicket.Action.BUILD:
                return await builds.stream(
                    self._config, self._watcher, self._stream, ticket.target, request
                )
            case StreamTicket.Action.TERMINAL:
                return await viewer.stream(self._terminals, self._stream, ticket.target, request)
            case StreamTicket.Action.IMAGE:
                return await images.stream(self._stream, ticket.target)
            case StreamTicket.Action.STATS:
                return await stats.readers.stream(self._stream, ticket.target)
            case StreamTicket.Action.FILES:
                return await files.read(self._stream, ticket.target, request)
            case StreamTicket.Action.PUT:
                return await files.write(self._stream, ticket.target, request)
        raise NotFound(f"no such stream: {ticket.action}")

    async def _end(self, message: dict[str, Any]) -> None:
        end = {"t": "end", "code": 1000, "reason": "", "again": False, **message}
        try:
            async with asyncio.timeout(1):
                await self._stream.send(end)
            await self._stream.linger(1)
        except (ConnectionError, TimeoutError):
            pass  # nobody is there to hear it
