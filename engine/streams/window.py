"""Flow control by acknowledgement: how far a stream may run ahead of its reader.

A browser buffers without end what its page has not handled yet, so the socket's own back-pressure
is not enough: the page acknowledges offsets as it has shown them (interface.md: Sockets).
"""

from __future__ import annotations

import asyncio

WINDOW = 256 * 1024


class Window:
    """Offsets are the stream's own. `size` None: never wait (downloads, which the socket paces)."""

    def __init__(self, start: int, size: int | None = WINDOW) -> None:
        self.sent = start
        self.acked = start
        self._size = size
        self._open = asyncio.Event()
        self._open.set()

    @property
    def behind(self) -> int:
        return self.sent - self.acked

    def move(self, offset: int) -> None:
        """`offset` is now sent."""
        self.sent = offset
        self._update()

    def ack(self, offset: int) -> None:
        """Never goes back, and never beyond what was sent: a page cannot open it further."""
        self.acked = max(self.acked, min(offset, self.sent))
        self._update()

    def restart(self, offset: int) -> None:
        """Bytes were skipped: the reader goes on at `offset`, owing nothing."""
        self.sent = self.acked = offset
        self._update()

    async def wait(self) -> None:
        await self._open.wait()

    def _update(self) -> None:
        if self._size is None or self.behind < self._size:
            self._open.set()
        else:
            self._open.clear()
