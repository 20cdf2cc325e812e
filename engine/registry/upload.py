"""Upload: blobs and manifests into one repository of a registry (distribution-spec, Push).

A blob goes in one request, straight from its file; in pieces where the registry finds that too
large; not at all where it has it, or can take it from another repository of its own. Which blobs an
image needs is engine.images.push's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO
from urllib.parse import urlencode, urljoin

from engine.errors import RegistryError, RegistryNotFound, RegistryUnavailable
from engine.oci.digest import Digest
from engine.registry.session import Request, Session
from engine.registry.transport import Answer

_PIECE = 32 << 20
_TOO_LARGE = 413
_ACTIONS = "pull,push"
_OCTETS = "application/octet-stream"
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")


@dataclass(frozen=True, slots=True)
class Blob:
    """`open` gives its bytes from the start, each time it is called."""

    digest: Digest
    size: int
    open: Callable[[], BinaryIO]


class Uploader:
    """Thread safe. Every call may raise RegistryError's kinds, PolicyDenied and Cancelled."""

    def __init__(self, session: Session, path: str) -> None:
        self._session = session
        self._path = path

    def has(self, digest: Digest) -> bool:
        """Whether this repository has the blob."""
        request = self._request("HEAD", f"/blobs/{digest}", f"blob {digest} of {self._path}")
        try:
            self._session.call(request)
        except RegistryNotFound:
            return False
        return True

    def mount(self, digest: Digest, source: str) -> bool:
        """Take the blob from another repository of the registry; False where it would not."""
        query = urlencode({"mount": digest, "from": source})
        request = self._request("POST", f"/blobs/uploads/?{query}", f"blob {digest} of {source}")
        try:
            answer = self._session.call(replace(request, also=source))
        except RegistryError as error:
            if "status" not in error.context:
                raise
            return False  # another's repository, or unknown: it is uploaded then
        if answer.status == 201:
            return True
        self._cancel(answer)
        return False

    def put(self, blob: Blob, sent: Callable[[int], None] = lambda _: None) -> None:
        """Upload it; `sent` is told how many bytes have gone. Begun anew when the connection
        breaks, as often as the policy has attempts."""
        attempt = 0
        while True:
            attempt += 1
            try:
                self._put(blob, sent)
            except RegistryUnavailable:
                delay = self._session.policy.delay(attempt, None)
                if delay is None:
                    raise
                self._session.pause(delay)
            else:
                return

    def manifest(self, target: str, body: bytes, media_type: str) -> None:
        """`target` is a tag or the manifest's digest."""
        request = self._request(
            "PUT",
            f"/manifests/{target}",
            f"{self._path}:{target}",
            {"Content-Type": media_type, "Content-Length": str(len(body))},
        )
        self._session.call(replace(request, body=lambda: _Piece(body)))

    def _put(self, blob: Blob, sent: Callable[[int], None]) -> None:
        subject = f"blob {blob.digest} of {self._path}"
        location = self._location(
            self._session.call(self._request("POST", "/blobs/uploads/", subject)), ""
        )
        request = self._request(
            "PUT",
            "",
            subject,
            {"Content-Type": _OCTETS, "Content-Length": str(blob.size)},
        )
        try:
            self._session.call(
                replace(
                    request,
                    url=_with_digest(location, blob.digest),
                    body=lambda: _Told(blob.open(), sent),
                    once=True,
                )
            )
        except RegistryError as error:
            if error.context.get("status") != _TOO_LARGE:
                raise
            self._put_in_pieces(blob, sent, subject)

    def _put_in_pieces(self, blob: Blob, sent: Callable[[int], None], subject: str) -> None:
        location = self._location(
            self._session.call(self._request("POST", "/blobs/uploads/", subject)), ""
        )
        offset = 0
        with blob.open() as file:
            while offset < blob.size:
                piece = _read(file, min(_PIECE, blob.size - offset))
                request = self._request(
                    "PATCH",
                    "",
                    subject,
                    {
                        "Content-Type": _OCTETS,
                        "Content-Length": str(len(piece)),
                        "Content-Range": f"{offset}-{offset + len(piece) - 1}",
                    },
                )
                answer = self._session.call(
                    replace(request, url=location, body=_opener(piece), once=True)
                )
                location = self._location(answer, location)
                taken = _RANGE.fullmatch(answer.headers.get("Range", ""))
                offset += len(piece)
                if taken is not None and int(taken[1]) + 1 != offset:
                    raise RegistryUnavailable(
                        f"{self._session.endpoint} has taken {int(taken[1]) + 1} of {offset} bytes",
                        hint="try again",
                        registry=str(self._session.endpoint),
                    )
                sent(offset)
        request = self._request("PUT", "", subject, {"Content-Length": "0"})
        self._session.call(replace(request, url=_with_digest(location, blob.digest), once=True))

    def _request(
        self, method: str, rest: str, subject: str, headers: dict[str, str] | None = None
    ) -> Request:
        return Request(method, self._path, rest, subject, headers or {}, actions=_ACTIONS)

    def _location(self, answer: Answer, before: str) -> str:
        given = answer.headers.get("Location", "")
        if not given and not before:
            raise RegistryUnavailable(
                f"{self._session.endpoint} began an upload without saying where",
                hint="tell who runs this registry",
                registry=str(self._session.endpoint),
            )
        base = before or self._session.endpoint.url(self._path, "/blobs/uploads/")
        found = urljoin(base, given) if given else before
        self._session.check_address(base, found)
        return found

    def _cancel(self, answer: Answer) -> None:
        """The upload a registry began in place of a mount; it forgets it by itself too."""
        location = self._location(answer, "")
        request = self._request("DELETE", "", f"an upload to {self._path}")
        try:
            self._session.call(replace(request, url=location, once=True))
        except RegistryError:
            return


class _Piece:
    """Bytes that read like a file."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def read(self, size: int = -1, /) -> bytes:
        taken = self._data if size < 0 else self._data[:size]
        self._data = self._data[len(taken) :]
        return bytes(taken)

    def close(self) -> None:
        self._data = self._data[:0]


class _Told:
    """A file whose reader is told of."""

    def __init__(self, file: BinaryIO, sent: Callable[[int], None]) -> None:
        self._file = file
        self._sent = sent
        self._count = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._count += len(data)
        self._sent(self._count)
        return data

    def close(self) -> None:
        self._file.close()


def _opener(piece: bytes) -> Callable[[], _Piece]:
    return lambda: _Piece(piece)


def _read(file: BinaryIO, size: int) -> bytes:
    pieces = []
    while size and (data := file.read(size)):
        pieces.append(data)
        size -= len(data)
    return b"".join(pieces)


def _with_digest(location: str, digest: Digest) -> str:
    return f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': digest})}"
