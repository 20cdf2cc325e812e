"""An image as an archive, for a download on a page: the pieces of `docker save`, as they are.

Frames out: JSON {"t": "size", "bytes"}, then the archive in BINARY frames, then the end. web is not
allowed to read the content store; it gets what the ticket names and nothing else.
"""

from __future__ import annotations

import asyncio
from typing import Any

from engine.errors import NotFound
from engine.images.save import FilePiece, Piece, length
from engine.models import Image
from engine.services.orm import orm
from engine.services.work.image_saves import archive
from engine.streams.framing import FrameStream

_SENT = 64 * 1024


async def stream(stream: FrameStream, target: str) -> dict[str, Any]:
    """Raises NotFound where the image, or a blob of it, is gone."""
    pieces = await orm(_pieces, target)
    await stream.send({"t": "size", "bytes": length(pieces)})
    for piece in pieces:
        if isinstance(piece, FilePiece):
            await _file(stream, piece)
        else:
            for at in range(0, len(piece), _SENT):
                await stream.send_bytes(piece[at : at + _SENT])
    return {}


def _pieces(target: str) -> list[Piece]:
    image = Image.objects.select_related("namespace").filter(pk=int(target)).first()
    if image is None:
        raise NotFound("the image is not here any more", kind="image")
    names = [tag.familiar for tag in image.tags.all()]
    return archive(image.namespace, names or [image.digest])


async def _file(stream: FrameStream, piece: FilePiece) -> None:
    """Whole while it is open, removed or not."""
    file = await asyncio.to_thread(piece.path.open, "rb", 0)
    with file:
        left = piece.size
        while left:
            data = await asyncio.to_thread(file.read, min(_SENT, left))
            if not data:
                raise NotFound(f"{piece.path} is shorter than it was", kind="image")
            left -= len(data)
            await stream.send_bytes(data)
