"""COPY's and ADD's arguments read: destination, owner, heredocs as files, archives as trees.

Leaves keys and the cache to engine.build.transfer and the writing to engine.build.copy.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.build.archive import sniff, unpack_archive
from engine.build.context import ROOT, Listing, Owner, SourceTree
from engine.build.placement import is_folder_name
from engine.dockerfile.heredoc import Heredoc
from engine.dockerfile.instructions import Add, Transfer
from engine.errors import ContextError
from engine.oci.image import ContainerConfig
from engine.runtime import rootfs
from engine.runtime.users import match_user

_PASSWD_LIMIT = 16 * 1024 * 1024


def destination(instruction: Transfer, config: ContainerConfig) -> str:
    """Absolute, with a slash at the end where the text means a folder."""
    text = instruction.destination
    path = posixpath.join("/", config.working_dir, text)
    return path if not is_folder_name(text) or path.endswith("/") else f"{path}/"


def history_text(instruction: Transfer) -> str:
    """What history says the instruction was."""
    flags = [f"{flag} " for flag in instruction.flags]
    sources = [*instruction.sources, *(f"<<{doc.name}" for doc in instruction.heredocs)]
    return f"{instruction.keyword} {''.join(flags)}{' '.join(sources)} {instruction.destination}"


def heredoc_tree(heredocs: Sequence[Heredoc], folder: Path, epoch: int | None) -> SourceTree:
    """Heredocs as files of a folder of ours, with a time that does not vary."""
    time_ns = (epoch or 0) * 10**9
    for heredoc in heredocs:
        # A heredoc's name is a word of the Dockerfile: it may hold a slash, or be "..".
        path = folder / posixpath.basename(posixpath.normpath(f"/x/{heredoc.name}"))
        path.write_text(heredoc.content)
        path.chmod(0o644)
        os.utime(path, ns=(time_ns, time_ns))
    return SourceTree(folder, owner=ROOT, what="the heredocs")


def sources_of(listings: Sequence[Listing]) -> list[tuple[str, str]]:
    """(name, content digest) for the key; a folder's own name does not matter, its content goes
    to the destination."""
    return [
        ("" if listing.source.is_dir else listing.source.name, listing.digest)
        for listing in listings
    ]


def owner_of(text: str, root: Path) -> Owner:
    """--chown: names from the target's own /etc/passwd and /etc/group; a number alone is the
    group's too, a user's name alone brings the user's group. Raises InvalidInput."""
    if text.isascii() and text.isdigit():
        text = f"{text}:{text}"
    with rootfs.opened(root) as folder:
        passwd = rootfs.read_file(folder, "/etc/passwd", _PASSWD_LIMIT) or b""
        group = rootfs.read_file(folder, "/etc/group", _PASSWD_LIMIT) or b""
    user = match_user(text, passwd, group)
    return Owner(user.uid, user.gid)


def needs_root(chown: str) -> bool:
    """Whether --chown has a name in it, which only the image can tell the number of."""
    return any(part and not part.isdigit() for part in chown.split(":"))


def unpacked(
    instruction: Transfer,
    listings: Sequence[Listing],
    folder: Callable[[str], Path],
    cancelled: Callable[[], bool],
) -> tuple[Listing, ...]:
    """ADD's local archives as the trees in them; everything else as it is. zip is no archive to
    ADD. `folder` makes a work folder. Raises ContextError."""
    if not isinstance(instruction, Add):
        return tuple(listings)
    found = []
    for number, listing in enumerate(listings):
        path = Path(listing.tree.real(listing.source, listing.entries[0]))
        if not stat.S_ISREG(listing.entries[0].kind) or not _is_archive(path):
            found.append(listing)
            continue
        target = folder(f"archive-{number}")
        unpack_archive(path, target, keep_owners=True, cancelled=cancelled)
        tree = SourceTree(target, root_mode=0o755, what=listing.source.name)
        found.append(tree.listing(tree.match(["."])[0]))
    return tuple(found)


def _is_archive(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            return sniff(file) == "tar"
        except ContextError:
            return False  # damaged: then it is a file like any other, as Docker has it
