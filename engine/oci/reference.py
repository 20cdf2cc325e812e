"""Reference: an image's name as people write it, made whole as Docker does it.

Grammar and normalisation are those of distribution/reference, so that `node` means
docker.io/library/node:latest everywhere. Leaves asking a registry to engine.registry, and telling
an image's id (a bare hex string) from a name to whoever looks images up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from engine.errors import InvalidInput, InvalidReference
from engine.oci.digest import Digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library"
_MAX_PATH = 255
_MAX_TEXT = 1024

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """`domain` (with its port), `path`, and a tag, a digest, or both; made by `parse` only."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `[domain/]path[:tag][@digest]`; the tag is `latest` where neither is given.

        Raises InvalidReference, whose hint says what to change.
        """
        if not text:
            raise _invalid(text, "an image name may not be empty", "write a name like node:22")
        if len(text) > _MAX_TEXT:
            raise _invalid(text, f"over {_MAX_TEXT} characters", "shorten it")
        if _IDENTIFIER.fullmatch(text):
            raise _invalid(
                text,
                "64 hexadecimal digits are an image's id, not a name",
                "write a name like node:22, or name@sha256: and the digits",
            )
        if text != text.strip():
            raise _invalid(text, "white space around the name", "take the blanks away")
        name, at, digest_text = text.partition("@")
        digest = _digest(text, digest_text) if at else None
        domain, rest = _split_domain(name)
        path, colon, tag = rest.partition(":")
        if colon and not _TAG.fullmatch(tag):
            raise _invalid(text, f"not a tag: {tag!r}", _tag_hint(tag))
        _check_domain(text, domain)
        _check_path(text, path)
        return cls(domain, path, tag if colon else None if digest else DEFAULT_TAG, digest)

    @property
    def repository(self) -> str:
        """`docker.io/library/node`: the name without tag and digest."""
        return f"{self.domain}/{self.path}"

    def canonical(self) -> str:
        """`docker.io/library/node:latest`, with `@digest` where there is one."""
        return self.repository + self._suffix()

    def familiar_name(self) -> str:
        """`node`: the shortest name that `parse` reads back as this repository."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        namespace, _, rest = self.path.partition("/")
        if namespace == _OFFICIAL and rest and "/" not in rest:
            return rest
        # A first component that looks like a domain would be taken for one: keep ours before it.
        return self.repository if _is_domain(namespace) or not rest else self.path

    def familiar(self) -> str:
        """`node:latest`: what `docker images` shows."""
        return self.familiar_name() + self._suffix()

    def with_tag(self, tag: str) -> Reference:
        """The same repository by that tag alone. Raises InvalidReference."""
        if not _TAG.fullmatch(tag):
            raise _invalid(f"{self.familiar_name()}:{tag}", f"not a tag: {tag!r}", _tag_hint(tag))
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Reference:
        """The same, tag kept, held to one digest."""
        return replace(self, digest=digest)

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag

    def __str__(self) -> str:
        return self.familiar()


def _is_domain(first: str) -> bool:
    return (
        first in ("localhost", _LEGACY_DOMAIN)
        or "." in first
        or ":" in first
        or first.lower() != first
    )


def _split_domain(name: str) -> tuple[str, str]:
    """Domain and the rest (path and tag): distribution/reference's splitDockerDomain."""
    first, slash, rest = name.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, f"{_OFFICIAL}/{name}"
    domain, rest = (first, rest) if _is_domain(first) else (DEFAULT_DOMAIN, name)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in rest:
        rest = f"{_OFFICIAL}/{rest}"
    return domain, rest


def _check_domain(text: str, domain: str) -> None:
    if _DOMAIN.fullmatch(domain):
        return
    hint = "a registry is a host name, with :port if need be, before the first slash"
    if "://" in text:
        hint = "leave the http:// or https:// away"
    raise _invalid(text, f"not a registry's address: {domain!r}", hint)


def _check_path(text: str, path: str) -> None:
    if path != path.lower():
        raise _invalid(text, "a repository's name has no capitals", "write it in lower case")
    if len(path) > _MAX_PATH:
        raise _invalid(
            text, f"a repository's name has at most {_MAX_PATH} characters", "shorten it"
        )
    for component in path.split("/"):
        if not _COMPONENT.fullmatch(component):
            what = f"not part of a name: {component!r}" if component else "an empty part"
            raise _invalid(
                text,
                what,
                "names are letters, digits and single . _ - between them, parted by slashes",
            )


def _digest(text: str, digest: str) -> Digest:
    try:
        return Digest.parse(digest)
    except InvalidInput as error:
        raise _invalid(text, f"not a digest: {digest[:80]!r}", error.hint) from error


def _tag_hint(tag: str) -> str:
    if not tag:
        return "write a tag after the colon, or leave the colon away"
    if len(tag) > 128:
        return "a tag has at most 128 characters"
    return "a tag is letters, digits, _ . and -, and begins with none of the last two"


def _invalid(text: str, what: str, hint: str) -> InvalidReference:
    shown = text[:300]
    return InvalidReference(
        f"invalid image name {shown!r}: {what}", hint=hint, reference=shown, reason=what
    )
