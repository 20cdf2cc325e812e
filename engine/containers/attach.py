"""conmon's attach socket: stdin for a container or an exec, and a brake on its output.

Output is read from the log; what comes here is the same bytes once more, without offsets. But
whoever is attached must read them: **conmon writes to each client and waits**, so one that does
not read freezes the program, its log and every other viewer, and hides its exit. That makes it
a brake for a terminal somebody has hands on, and a danger everywhere else. So: hold one only
while a client asks, let the loop that reads do nothing else, release it before a stop.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.errors import WrongState

# Over 32 KiB conmon cuts a packet off without a word; a pty takes 4 KiB at a time anyway.
MAX_PACKET = 8192
# One marker byte and conmon's read buffer.
_READ = 8192 + 1


class Attach:
    """One connection, for one asyncio loop. `write` from one task, `drain` or `read` in another.

    attached = await Attach.open(bundle)
    asyncio.create_task(attached.drain())     # without a brake: read and forget
    await attached.write(data)
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._closed = asyncio.Event()

    @classmethod
    async def open(cls, bundle: Path) -> Attach:
        """Connect. Raises WrongState when nothing runs there."""
        return cls(cls.connect(bundle))

    @staticmethod
    def connect(bundle: Path) -> socket.socket:
        """The plain socket, for those without a loop."""
        try:
            folder = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise WrongState(f"nothing runs in {bundle}", path=str(bundle)) from error
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # Through the folder's descriptor: a socket's path may not exceed 107 bytes.
            # Blocking on purpose: it takes microseconds, conmon's queue of ten is never full
            # for long, and a full one would be an error without it.
            connection.connect(f"/proc/self/fd/{folder}/attach")
        except OSError as error:
            connection.close()
            raise WrongState(f"nothing runs in {bundle}", path=str(bundle)) from error
        finally:
            os.close(folder)
        connection.setblocking(False)
        return connection

    async def write(self, data: bytes) -> None:
        """stdin. Waits while the program does not read its own. Raises WrongState at its end."""
        loop = asyncio.get_running_loop()
        view = memoryview(data)
        try:
            for start in range(0, len(view), MAX_PACKET):
                await loop.sock_sendall(self._socket, view[start : start + MAX_PACKET])
        except OSError as error:
            raise WrongState("the program has ended or closed its input") from error

    def end_input(self) -> None:
        """Half-close. conmon then closes stdin for *all* clients, if the container is StdinOnce.

        On a tty it does nothing: send ^D there.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has ended already

    async def read(self) -> bytes:
        """The next piece of output, of either stream, without its marker; empty at the end."""
        try:
            packet = await asyncio.get_running_loop().sock_recv(self._socket, _READ)
        except OSError:
            packet = b""
        if not packet:
            self._closed.set()
        return packet[1:]

    async def drain(
        self, paced: Callable[[int], asyncio.Future[None] | None] | None = None
    ) -> None:
        """Read and discard until the end.

        `paced` gets the bytes of each piece and may give a future: nothing more is read before
        it is done (the brake).
        """
        while data := await self.read():
            if paced is not None and (hold := paced(len(data))) is not None:
                await hold

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
