"""Digest: the name of content; ChainID: the name of a stack of layers.

`digest` is of a blob as stored, `diff_id` of an uncompressed layer, `chain_id` of a stack of them
(image-spec descriptor.md "Digests", config.md "Layer ChainID"). Only sha256, the one algorithm
every registry has. Leaves reading and storing of content to engine.content.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from itertools import accumulate

from engine.errors import InvalidInput

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Digest(str):
    """`sha256:` and 64 lower-case hex digits; equal to, and usable as, the plain string.

    Raises InvalidInput for anything else, so a Digest is always safe as a file's name.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        if isinstance(text, Digest):
            return text
        if not _DIGEST.fullmatch(text):
            raise InvalidInput(
                f"not a sha256 digest: {text[:100]}",
                hint="a digest is sha256: and 64 hexadecimal digits in lower case",
                digest=text[:100],
            )
        return super().__new__(cls, text)

    @classmethod
    def parse(cls, text: str) -> Digest:
        return cls(text)

    @classmethod
    def of(cls, content: bytes) -> Digest:
        return cls.from_hex(hashlib.sha256(content).hexdigest())

    @classmethod
    def from_hex(cls, text: str) -> Digest:
        """Of 64 hex digits, as hashlib's `hexdigest()` gives them."""
        return cls(f"sha256:{text}")

    @property
    def hex(self) -> str:
        return self[7:]

    @property
    def short(self) -> str:
        """The twelve digits people are shown."""
        return self[7:19]


def chain_ids(diff_ids: Iterable[Digest]) -> tuple[Digest, ...]:
    """The ChainID of each layer with all below it, bottom first."""
    return tuple(accumulate(diff_ids, lambda below, diff: Digest.of(f"{below} {diff}".encode())))


def chain_id(diff_ids: Iterable[Digest]) -> Digest:
    """The ChainID of the whole stack. Raises InvalidInput where there is no layer."""
    ids = chain_ids(diff_ids)
    if not ids:
        raise InvalidInput("an image without layers has no chain id")
    return ids[-1]
