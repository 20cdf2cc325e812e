"""RegistryClient: pulls manifests and blobs of one registry, by its mirrors or itself.

One client serves one transfer (a pull, a build): its threads share connections, tokens and the
knowledge of which endpoint answers, and `abort` ends them all. Leaves keeping what was fetched to
images/pull; pushing is engine.registry.upload's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import TypeVar

from engine.config import EngineConfig
from engine.errors import (
    ContentCorrupt,
    PolicyDenied,
    QuaysideError,
    RegistryError,
    RegistryUnauthorized,
    Unsupported,
)
from engine.oci import media_types
from engine.oci.digest import Digest
from engine.oci.image import Descriptor
from engine.oci.reference import Reference
from engine.registry import failures
from engine.registry.auth import Credentials
from engine.registry.blob import BlobReader
from engine.registry.endpoints import Endpoint, endpoints
from engine.registry.session import Request, RetryPolicy, Session
from engine.registry.tags import MOST_PAGES, PAGE_LIMIT, read_page
from engine.registry.transport import Answer, Timeouts, Transport

MANIFEST_LIMIT = 4 << 20
"""Registries refuse manifests above 4 MiB (distribution-spec, Pushing Manifests)."""

_DOCUMENT_LIMIT = 8 << 20
_KNOWN = media_types.INDEXES | media_types.MANIFESTS
_SCHEMA1 = (media_types.DOCKER_SCHEMA1, media_types.DOCKER_SCHEMA1_SIGNED)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference names: `body` are the very bytes of the manifest or index."""

    descriptor: Descriptor
    body: bytes


class RegistryClient:
    """Thread safe; a context manager that closes its connections.

    Every call may raise RegistryUnauthorized, RegistryNotFound, RegistryRateLimited,
    RegistryUnavailable, ContentCorrupt, PolicyDenied (a private address nobody allowed) and
    Cancelled (after `abort`).
    """

    def __init__(
        self,
        domain: str,
        *,
        mirrors: Sequence[str] = (),
        insecure: Collection[str] = (),
        credentials: Credentials | None = None,
        timeouts: Timeouts | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        """`domain` as in Reference.domain. `credentials` are the registry's own and are never
        sent to a mirror. Raises InvalidInput for a mirror that is no address."""
        self.domain = domain
        policy = policy or RetryPolicy()
        self._policy = policy
        self._transport = Transport(timeouts or Timeouts())
        all_endpoints = endpoints(
            domain, mirrors=mirrors, insecure=insecure, credentials=credentials
        )
        # With somebody else left to ask there is no point in waiting long for one endpoint.
        brief = replace(policy, attempts=min(policy.attempts, 2))
        self._sessions = [
            Session(endpoint, self._transport, policy if endpoint is all_endpoints[-1] else brief)
            for endpoint in all_endpoints
        ]
        self._lock = threading.Lock()
        self._preferred = 0

    @classmethod
    def configured(
        cls, domain: str, config: EngineConfig, credentials: Credentials | None = None
    ) -> RegistryClient:
        """With the mirrors and insecure registries of the engine's configuration."""
        return cls(
            domain,
            mirrors=config.mirrors.get(domain, ()),
            insecure=config.insecure_registries,
            credentials=credentials,
        )

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        """End every call under way, from any thread: they raise Cancelled. It is used up then."""
        self._transport.abort()

    def resolve(self, reference: Reference) -> Resolved:
        """The manifest or index a tag or digest names, verified against the digest if it has one.

        Raises Unsupported for a manifest of schema 1.
        """
        target = reference.digest or reference.tag or "latest"
        separator = "@" if reference.digest else ":"
        subject = f"{reference.path}{separator}{target}"
        return self._each(lambda session: self._manifest(session, reference.path, target, subject))

    def fetch_manifest(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest an index points to, verified."""
        return self.resolve(reference.with_digest(descriptor.digest)).body

    def fetch_document(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """The bytes of a small blob (an image config), verified. At most 8 MiB."""
        if descriptor.size > _DOCUMENT_LIMIT:
            raise ContentCorrupt(
                f"image config {descriptor.digest} claims {descriptor.size} bytes",
                hint="the image is damaged: a config is some kilobytes",
                digest=descriptor.digest,
            )
        with self.open_blob(reference, descriptor) as reader:
            body = b"".join(iter(reader.read, b""))
            if Digest.of(body) != descriptor.digest:
                raise _corrupt(reader.endpoint, f"blob {descriptor.digest}", Digest.of(body))
        return body

    def open_blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        offset: int = 0,
        avoid: Endpoint | None = None,
    ) -> BlobReader:
        """A reader of the blob from `offset` on; nothing is asked before its first read.

        `avoid`: an endpoint that sent it damaged; asked only when there is no other.
        """

        def opener(at: int, tired: Endpoint | None) -> tuple[Endpoint, Answer]:
            headers = {"Accept-Encoding": "identity", "Accept": "*/*"}
            if at:
                headers["Range"] = f"bytes={at}-"
            subject = f"blob {descriptor.digest} of {reference.path}"
            rest = f"/blobs/{descriptor.digest}"
            return self._each(
                lambda session: (
                    session.endpoint,
                    session.get(reference.path, rest, subject, headers),
                ),
                tired or avoid,
            )

        return BlobReader(descriptor, offset, opener, self._transport.pause, self._policy)

    def tags(self, reference: Reference) -> list[str]:
        """Every tag of the reference's repository, in the registry's own order. Raises
        ContentCorrupt for what is no list of tags, or one without end."""
        subject = f"the tags of {reference.path}"
        found: list[str] = []
        query = ""
        for _ in range(MOST_PAGES):
            answer, body = self._each(partial(_tag_page, reference.path, query, subject))
            tags, following = read_page(subject, body, answer.headers.get("Link", ""))
            found += tags
            if not following or following == query:
                return found
            query = following
        raise ContentCorrupt(
            f"{self.domain} has no end of {subject}", hint="name one", subject=subject
        )

    def sign_in(self) -> None:
        """Ask the registry itself with the credentials, strictly: RegistryUnauthorized where they
        do not hold."""
        self._origin(strict=True)

    def origin(self) -> Session:
        """The registry itself, never a mirror: where pushes go. It is asked whether it is one;
        what it gives to whom shows with the first blob."""
        return self._origin(strict=False)

    def _origin(self, *, strict: bool) -> Session:
        request = Request("GET", "", "", "the registry")
        failed: list[tuple[Endpoint, RegistryError | PolicyDenied]] = []
        for session in self._sessions:
            if session.endpoint.mirror:
                continue
            try:
                session.call(replace(request, url=session.endpoint.base()))
            except (RegistryError, PolicyDenied) as error:
                if isinstance(error, RegistryUnauthorized) and not strict:
                    return session
                failed.append((session.endpoint, error))
                continue
            return session
        raise _verdict(failed)

    def _manifest(self, session: Session, path: str, target: str, subject: str) -> Resolved:
        accept = {"Accept": ", ".join(media_types.ACCEPT)}
        answer, body = session.read(path, f"/manifests/{target}", subject, accept, MANIFEST_LIMIT)
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        digest = Digest.of(body)
        promised = {target} if target.startswith("sha256:") else set()
        promised |= {answer.headers.get("Docker-Content-Digest") or digest}
        if len(body) > MANIFEST_LIMIT or promised != {digest}:
            raise _corrupt(session.endpoint, subject, digest)
        if media_type in _SCHEMA1:
            raise Unsupported(
                f"{subject} is a manifest of schema 1, which Docker gave up in 2019",
                hint="push the image again with a current docker, or use a newer tag",
                subject=subject,
            )
        if media_type not in _KNOWN:
            raise ContentCorrupt(
                f"{session.endpoint} has no container image under {subject}, but"
                f" {media_type[:100] or 'something without a type'}",
                hint="check that the name is an image's, and the address a registry's",
                registry=str(session.endpoint),
                subject=subject,
            )
        return Resolved(Descriptor(media_type, digest, len(body)), body)

    def _each(self, ask: Callable[[Session], T], avoid: Endpoint | None = None) -> T:
        """The first endpoint that can, beginning with the one that could last time."""
        with self._lock:
            first = self._preferred
        order = sorted(
            range(len(self._sessions)),
            key=lambda n: (self._sessions[n].endpoint == avoid, n != first, n),
        )
        failed: list[tuple[Endpoint, RegistryError | PolicyDenied]] = []
        for number in order:
            session = self._sessions[number]
            try:
                result = ask(session)
            except (RegistryError, PolicyDenied) as error:
                failed.append((session.endpoint, error))
                continue
            if avoid is None:
                with self._lock:
                    self._preferred = number
            return result
        raise _verdict(failed)


def _tag_page(path: str, query: str, subject: str, session: Session) -> tuple[Answer, bytes]:
    rest = f"/tags/list?{query}" if query else "/tags/list"
    return session.read(path, rest, subject, {"Accept": "application/json"}, PAGE_LIMIT)


def _verdict(failed: Sequence[tuple[Endpoint, RegistryError | PolicyDenied]]) -> QuaysideError:
    """One error for all endpoints: the origin's, unless it only could not be reached while a
    mirror answered; what the others said is in its text."""

    def weight(entry: tuple[Endpoint, RegistryError | PolicyDenied]) -> tuple[bool, bool]:
        endpoint, error = entry
        answered = isinstance(error, PolicyDenied) or failures.was_answered(error)
        return answered, not endpoint.mirror

    plain = [entry for entry in failed if not entry[0].probe] or list(failed)
    _, chosen = max(plain, key=weight)
    others = [error.message for _, error in plain if error is not chosen]
    if not others:
        return chosen
    return type(chosen)("; ".join([chosen.message, *others]), hint=chosen.hint, **chosen.context)


def _corrupt(endpoint: Endpoint | None, subject: str, digest: Digest) -> ContentCorrupt:
    return ContentCorrupt(
        f"{endpoint} sent {subject} damaged: its digest is {digest}",
        hint="try again; if it stays so, the registry or its proxy sends wrong data",
        registry=str(endpoint),
        subject=subject,
    )
