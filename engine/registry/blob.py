"""Reads one blob of a known size, and goes on where it stopped when the connection breaks.

Hands bytes over as they arrive, at most as many as the descriptor promised. Verifying the digest
is the content store's, which hashes what it writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from urllib3.exceptions import HTTPError

from engine.errors import ContentCorrupt, RegistryUnavailable
from engine.oci.image import Descriptor
from engine.registry import failures
from engine.registry.endpoints import Endpoint
from engine.registry.session import RetryPolicy
from engine.registry.transport import Answer

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_PROGRESS = 1 << 20
_CHUNK = 256 << 10

Opener = Callable[[int, "Endpoint | None"], tuple[Endpoint, Answer]]
"""Opens the blob at an offset: who answered, and what (200 from the start, or 206). The second
argument is who is to be asked last."""


class BlobReader:
    """A context manager; `.offset` is how far it has come, in bytes from the blob's start.

    A connection that breaks is opened again with Range; as many times in a row as the policy has
    attempts, counted anew once a MiB has come since.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        offset: int,
        opener: Opener,
        pause: Callable[[float], None],
        policy: RetryPolicy,
    ) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self._open = opener
        self._pause = pause
        self._policy = policy
        self._breaks = 0
        self._counted_at = offset
        self._endpoint: Endpoint | None = None
        self._answer: Answer | None = None

    def __enter__(self) -> BlobReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def endpoint(self) -> Endpoint | None:
        """Who sent the last bytes."""
        return self._endpoint

    def read(self, amount: int = _CHUNK) -> bytes:
        """Up to `amount` bytes as soon as there are some; b"" at the blob's end.

        Raises ContentCorrupt when the server's blob has another size, RegistryUnavailable when the
        connection breaks too often, whatever opening raises, and Cancelled.
        """
        while (left := self.descriptor.size - self.offset) > 0:
            try:
                answer = self._answer or self._start()
                data = answer.raw.read1(min(amount, left), decode_content=False)
            except (HTTPError, OSError) as error:
                self._broken(error)
                continue
            if data:
                self.offset += len(data)
                return data
            self._broken(ConnectionError("it ended early"))
        return b""

    def close(self) -> None:
        """Give the connection back when the blob was read to its end, else close it."""
        if self._answer is None:
            return
        raw, self._answer = self._answer.raw, None
        if self.offset < self.descriptor.size:
            raw.close()
        else:
            with suppress(HTTPError, OSError):  # the bytes are all here: this only tidies up
                raw.drain_conn()
        raw.release_conn()

    def _start(self) -> Answer:
        # Twice broken at one place: another mirror, or the registry itself, may do better.
        tired = self._endpoint if self._breaks > 1 else None
        self._endpoint, answer = self._open(self.offset, tired)
        self._answer = answer
        if answer.status == 206:
            self._check_range(answer)
        else:
            self._check_length(answer, 0)
            self._skip(answer)
        return answer

    def _check_range(self, answer: Answer) -> None:
        given = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if given is None or int(given[1]) != self.offset:
            self._wrong("sends another part than was asked for")
        elif given[3] != "*" and int(given[3]) != self.descriptor.size:
            self._wrong(f"has {given[3]} bytes of it, not {self.descriptor.size}")

    def _check_length(self, answer: Answer, start: int) -> None:
        length = answer.headers.get("Content-Length", "")
        if length.isdigit() and start + int(length) != self.descriptor.size:
            self._wrong(f"has {length} bytes of it, not {self.descriptor.size}")

    def _skip(self, answer: Answer) -> None:
        """The server does not know Range: read over what is here already."""
        left = self.offset
        while left:
            data = answer.raw.read1(min(_CHUNK, left), decode_content=False)
            if not data:
                raise ConnectionError("it ended early")
            left -= len(data)

    def _wrong(self, what: str) -> None:
        digest = self.descriptor.digest
        endpoint = self._endpoint
        self.close()
        raise ContentCorrupt(
            f"{endpoint} {what}: blob {digest}",
            hint="try again; if it stays so, the registry or its proxy sends wrong data",
            digest=digest,
            registry=str(endpoint),
        )

    def _broken(self, error: Exception) -> None:
        self.close()
        self._pause(0)  # broken because it was aborted: that is raised instead
        if self.offset - self._counted_at >= _PROGRESS:
            self._breaks = 0
        self._counted_at = self.offset
        self._breaks += 1
        delay = self._policy.delay(self._breaks, None)
        if delay is not None:
            self._pause(delay)
            return
        failure = failures.of_connection(self._endpoint, error) if self._endpoint else None
        raise RegistryUnavailable(
            f"the connection to {self._endpoint} broke {self._breaks} times in a row at byte"
            f" {self.offset} of {self.descriptor.size} of blob {self.descriptor.digest}",
            hint="check the network and try again: what has arrived is kept",
            digest=self.descriptor.digest,
            registry=str(self._endpoint),
        ) from (failure.error if failure else error)
