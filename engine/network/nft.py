"""libnftables through ctypes: 0.1 ms a transaction, where running nft takes 2.4 ms.

What the rules say is in `ruleset`. A context is kept open: closing its socket after something was
deleted waits for the kernel to be done with it, 8 ms and more.
"""

from __future__ import annotations

import ctypes
import json
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from engine.errors import NetworkFailed

LIBRARY = "libnftables.so.1"
_OUTPUT_JSON = 1 << 4


class Nftables:
    """One context, opened at the first use, in the network namespace of that thread.

    Not for two threads at once. A process forked from one that used it opens its own.
    """

    def __init__(self) -> None:
        self._context: ctypes.c_void_p | None = None
        self._owner = 0
        self._finalizer: weakref.finalize[..., Nftables] | None = None

    def close(self) -> None:
        """Free the context; the next use opens another."""
        if self._finalizer is not None and self._owner == os.getpid():
            self._finalizer()
        self._context = None

    def run(self, commands: str) -> str:
        """Run all of `commands` as one transaction and give what it prints.

        Raises NetworkFailed with nft's own words; nothing was changed then.
        """
        error = self.attempt(commands)
        if error:
            raise NetworkFailed(f"nftables refused: {error}")
        return self.output()

    def attempt(self, commands: str) -> str:
        """As `run`, but gives the error's text ("" when it went well): for what may be gone."""
        context = self._opened()
        self.output()  # what an earlier command printed and nobody read is not this one's
        if _library().nft_run_cmd_from_buffer(context, commands.encode()) == 0:
            return ""
        return self._text("error").strip() or "no reason given"

    def output(self) -> str:
        """What the last command printed; reading it empties it."""
        return self._text("output")

    def query(self, commands: str) -> list[dict[str, Any]] | None:
        """The objects that a `list` command gives; None when there is no such thing."""
        context = self._opened()
        _library().nft_ctx_output_set_flags(context, _OUTPUT_JSON)
        try:
            error = self.attempt(commands)
            if "No such file or directory" in error:
                return None
            if error:
                raise NetworkFailed(f"nftables refused: {error}")
            objects: list[dict[str, Any]] = json.loads(self.output())["nftables"]
            return [item for item in objects if "metainfo" not in item]
        finally:
            _library().nft_ctx_output_set_flags(context, 0)

    def _text(self, kind: str) -> str:
        buffer: bytes = getattr(_library(), f"nft_ctx_get_{kind}_buffer")(self._opened())
        return buffer.decode(errors="replace")

    def _opened(self) -> ctypes.c_void_p:
        if self._context is not None and self._owner == os.getpid():
            return self._context
        library = _library()
        if self._finalizer is not None:  # the parent's: its socket is not ours to speak on
            self._finalizer.detach()
        pointer = library.nft_ctx_new(0)
        if not pointer:
            raise NetworkFailed("nftables gave no context", hint="the engine has to run as root")
        context = ctypes.c_void_p(pointer)
        self._finalizer = weakref.finalize(self, library.nft_ctx_free, context)
        for kind in ("output", "error"):
            if getattr(library, f"nft_ctx_buffer_{kind}")(context):
                raise NetworkFailed(f"nftables could not buffer its {kind}")
        self._context, self._owner = context, os.getpid()
        return context


@contextmanager
def open_nftables() -> Iterator[Nftables]:
    """A context for a few commands."""
    nft = Nftables()
    try:
        yield nft
    finally:
        nft.close()


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NetworkFailed(
            f"{LIBRARY} cannot be loaded", hint="install the package libnftables1"
        ) from error
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.nft_ctx_new.restype = pointer
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [pointer]
    library.nft_ctx_free.restype = None
    library.nft_run_cmd_from_buffer.argtypes = [pointer, text]
    library.nft_ctx_output_set_flags.argtypes = [pointer, ctypes.c_uint]
    for kind in ("output", "error"):
        getattr(library, f"nft_ctx_buffer_{kind}").argtypes = [pointer]
        getter = getattr(library, f"nft_ctx_get_{kind}_buffer")
        getter.argtypes = [pointer]
        getter.restype = text
    return library
