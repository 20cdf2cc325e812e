"""The filters of images (`docker images --filter`, `docker image prune --filter`) on rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from django.utils import timezone

from engine.api.filtering import known, truth
from engine.api.image_shapes import Names, labels_of
from engine.api.words import point
from engine.errors import InvalidInput
from engine.models import Image
from engine.services.labels import match

Filters = Mapping[str, Sequence[str]]
_LIST = ("dangling", "label", "label!", "reference", "before", "since", "until")
_PRUNE = ("dangling", "label", "label!", "until")


def listed(
    images: Iterable[Image], filters: Filters, names: Names, find: Callable[[str], Image]
) -> list[Image]:
    """Those that fit; `find` gives the image a `before` or `since` names. Raises InvalidInput."""
    known(filters, _LIST)
    found = _labelled(images, filters)
    if "dangling" in filters:
        wanted = dangling(filters, False)
        # moby: asked for them, all without a tag; asked for the others, those with any name.
        found = [
            image
            for image in found
            if (not names.tags(image) if wanted else names.tags(image) or names.digests(image))
        ]
    patterns = [name_pattern(text) for text in filters.get("reference", ())]
    if patterns:
        names.keep(
            lambda name: any(
                pattern.fullmatch(text)
                for pattern in patterns
                for text in (name, _repository(name))
            )
        )
        found = [image for image in found if names.tags(image) or names.digests(image)]
    for name in filters.get("before", ()):
        limit = find(name).created_at
        found = [image for image in found if image.created_at < limit]
    for name in filters.get("since", ()):
        limit = find(name).created_at
        found = [image for image in found if image.created_at > limit]
    return found


def prunable(images: Iterable[Image], filters: Filters) -> list[Image]:
    """By label and age; raises InvalidInput."""
    known(filters, _PRUNE)
    return _labelled(images, filters)


def dangling(filters: Filters, default: bool) -> bool:
    """Raises InvalidInput for what is neither true nor false."""
    found = truth("dangling", filters.get("dangling", ()))
    return default if found is None else found


def _labelled(images: Iterable[Image], filters: Filters) -> list[Image]:
    untils = filters.get("until", ())
    if len(untils) > 1:
        raise InvalidInput("more than one until filter specified")
    limits = [point(text, timezone.now()) for text in untils]
    if None in limits:
        raise InvalidInput(f'time: invalid duration "{untils[0]:.100}"')
    return [
        image
        for image in images
        if match(labels_of(image), filters.get("label", ()), filters.get("label!", ()))
        and all(limit is None or image.created_at < limit for limit in limits)
    ]


def _repository(name: str) -> str:
    """node of node:20 and of node@sha256:…; host:5000/a keeps its port."""
    if "@" in name:
        return name.partition("@")[0]
    return name.rpartition(":")[0]


def name_pattern(text: str) -> re.Pattern[str]:
    """Go's path.Match: * and ? stop at a slash, [a-z] and [^a-z] are classes."""
    parts, at = [], 0
    while at < len(text):
        char = text[at]
        if char == "*":
            parts.append("[^/]*")
        elif char == "?":
            parts.append("[^/]")
        elif char == "[" and (end := text.find("]", at + 2)) > 0:
            inner = text[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"[{inner}]")
            at = end
        else:
            if char == "\\" and at + 1 < len(text):
                at += 1
                char = text[at]
            parts.append(re.escape(char))
        at += 1
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error as error:
        raise InvalidInput(f"syntax error in pattern: {text:.200}") from error
