"""A container's files and changes as their templates show them, from what engined says of them.

Pure. Paths travel as os.fsdecode gives them: bytes that are no UTF-8 survive an address, and
become marks where they are shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote

from django.core.paginator import Page, Paginator
from django.http import HttpRequest
from django.utils.translation import gettext, gettext_lazy, pgettext_lazy

from console.states import State
from engine.containers.browse import PAGE_SIZE

_WORDS = {
    "folder": gettext_lazy("folder"),
    "file": gettext_lazy("file"),
    "link": gettext_lazy("symbolic link"),
    "device": gettext_lazy("device"),
    "pipe": gettext_lazy("pipe"),
    "socket": gettext_lazy("socket"),
}
_ICONS = {"folder": "folder", "link": "external"}
_CHANGES = {
    "added": ("run", "plus", pgettext_lazy("change", "added")),
    "changed": ("build", "pen", pgettext_lazy("change", "changed")),
    "deleted": ("fail", "remove", pgettext_lazy("change", "deleted")),
}


@dataclass(frozen=True, slots=True)
class FileRow:
    """`href` is empty where there is nothing to look into, `get` where nothing can be had."""

    name: str
    href: str
    get: str
    icon: str
    word: str
    is_folder: bool
    size: int | None
    mode: str
    owner: str
    changed: datetime | None
    link: str
    dangling: bool


@dataclass(frozen=True, slots=True)
class ChangeRow:
    folder: str
    name: str
    href: str
    icon: str
    word: str
    state: State
    size: int | None


def shown(name: str) -> str:
    """A path or name as text."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def path_of(request: HttpRequest) -> str:
    """`?path=` with every byte it had; "/" for none."""
    pairs = parse_qsl(request.META.get("QUERY_STRING", ""), errors="surrogateescape")
    return next((value for name, value in pairs if name == "path"), "") or "/"


def at(path: str) -> str:
    """The query that names `path`."""
    return f"?path={quote(os.fsencode(path), safe='/')}"


def number_of(request: HttpRequest) -> int:
    """`?page=`; 1 for what is none."""
    text = request.GET.get("page", "")
    return int(text) if text.isdecimal() and len(text) < 10 else 1


def page_of(found: Mapping[str, Any]) -> Page[int]:
    """The page an answer of engined's holds, for the pager: it has no rows itself."""
    return Paginator(range(found["count"]), PAGE_SIZE).page(found["start"] // PAGE_SIZE + 1)


def crumbs(path: str) -> Iterator[tuple[str, str]]:
    """(name, query) of each folder on the way, and of itself at the end; without the root."""
    parts = path.strip("/").split("/") if path != "/" else []
    for number, part in enumerate(parts, 1):
        yield shown(part), at("/" + "/".join(parts[:number]))


def parent_of(path: str) -> str:
    """The query of the folder it is in; "" at the root."""
    return at(path.rpartition("/")[0] or "/") if path != "/" else ""


def file_row(folder: str, entry: Mapping[str, Any], get: str) -> FileRow:
    """`get` is the address that downloads, without its query."""
    kind, leads = str(entry["kind"]), str(entry["leads"])
    path = f"{folder.rstrip('/')}/{entry['name']}"
    ends = leads if kind == "link" else kind
    return FileRow(
        name=shown(entry["name"]),
        href=at(path) if ends in ("folder", "file") else "",
        get=f"{get}{at(path)}" if ends in ("folder", "file") else "",
        icon=_ICONS.get(kind, "file"),
        word=str(_WORDS[kind]),
        is_folder=ends == "folder",
        size=int(entry["size"]) if kind == "file" else None,
        mode=str(entry["mode"]),
        owner=f"{entry['owner']}:{entry['group']}",
        changed=_moment(entry["changed"]),
        link=shown(entry["link"]),
        dangling=kind == "link" and not leads,
    )


def change_row(change: Mapping[str, Any], files: str) -> ChangeRow:
    """`files` is the address of the Files tab."""
    path, what = str(change["path"]), str(change["what"])
    folder, _, name = path.rpartition("/")
    tone, icon, word = _CHANGES[change["kind"]]
    return ChangeRow(
        folder=shown(folder) + "/",
        name=shown(name),
        href=f"{files}{at(path)}" if what in ("folder", "file") else "",
        icon=_ICONS.get(what, "file"),
        word=str(_WORDS[what]) if what else gettext("gone"),
        state=State(tone, icon, str(word)),
        size=int(change["size"]) if what == "file" else None,
    )


def _moment(seconds: float) -> datetime | None:
    """A container may give its files any time at all."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
