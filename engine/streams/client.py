"""web's side of engined's socket: connect, show the ticket, then read and send frames."""

from __future__ import annotations

import asyncio
from pathlib import Path

from engine.config import EngineConfig
from engine.errors import EngineError
from engine.streams.framing import MAX_PAYLOAD, FrameStream


def socket_path(config: EngineConfig) -> Path:
    return config.run_dir / "engined.sock"


async def open_stream(
    config: EngineConfig, ticket: str, parameters: dict[str, str | int | bool]
) -> FrameStream:
    """A stream that `ticket` allows. Its first frame is engined's `hello`, or an `end`.

    `parameters`: see the stream's own module (logs, builds, terminals). Raises EngineError when
    engined is away."""
    path = socket_path(config)
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=2 * MAX_PAYLOAD)
    except OSError as error:
        raise EngineError(
            f"engined does not answer at {path}", hint="it is starting, or has stopped"
        ) from error
    stream = FrameStream(reader, writer)
    try:
        await stream.send({**parameters, "t": "open", "ticket": ticket})
    except ConnectionError as error:
        await stream.close()
        raise EngineError(f"engined closed the connection at {path}") from error
    return stream
