"""The filters of images (`docker images --filter`, `docker image prune --filter`) on rows."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from engine.api.image_shapes import Names, labels_of
from engine.dockerfile.durations import parse_duration
from engine.errors import InvalidInput, QuaysideError
from engine.models import Image

Filters = Mapping[str, Sequence[str]]
_LIST = ("dangling", "label", "label!", "reference", "before", "since", "until")
_PRUNE = ("dangling", "label", "label!", "until")


def listed(
    images: Iterable[Image], filters: Filters, names: Names, find: Callable[[str], Image]
) -> list[Image]:
    """Those that fit; `find` gives the image a `before` or `since` names. Raises InvalidInput."""
    _known(filters, _LIST)
    found = _labelled(images, filters)
    if "dangling" in filters:
        wanted = dangling(filters, False)
        # moby: asked for them, all without a tag; asked for the others, those with any name.
        found = [
            image
            for image in found
            if (not names.tags(image) if wanted else names.tags(image) or names.digests(image))
        ]
    patterns = [_pattern(text) for text in filters.get("reference", ())]
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
    _known(filters, _PRUNE)
    return _labelled(images, filters)


def dangling(filters: Filters, default: bool) -> bool:
    """Raises InvalidInput for what is neither true nor false."""
    values = filters.get("dangling", ())
    if not values:
        return default
    if len(values) == 1 and values[0].lower() in ("true", "1", "t"):
        return True
    if len(values) == 1 and values[0].lower() in ("false", "0", "f"):
        return False
    raise InvalidInput(f"invalid filter 'dangling={values}'")


def moment(text: str) -> float:
    """Unix seconds of a time as Docker takes it: seconds, RFC 3339 (parts may be missing), or a
    Go duration before now. Raises InvalidInput."""
    try:
        if re.fullmatch(r"-?\d+(\.\d+)?", text):
            return float(text)
        if re.match(r"\d{4}-\d\d", text):
            whole = text if len(text) > 7 else f"{text}-01"
            parsed = datetime.fromisoformat(whole)
            return (parsed if parsed.tzinfo else parsed.astimezone()).timestamp()
        return time.time() - parse_duration(text) / 1e9
    except (ValueError, QuaysideError) as error:
        raise InvalidInput(f'time: invalid duration "{text:.100}"') from error


def has_labels(labels: Mapping[str, str], filters: Filters) -> bool:
    """All of `label` and none of `label!`; each is KEY or KEY=VALUE."""

    def has(text: str) -> bool:
        key, separator, value = text.partition("=")
        return key in labels and (not separator or labels[key] == value)

    return all(map(has, filters.get("label", ()))) and not any(map(has, filters.get("label!", ())))


def _labelled(images: Iterable[Image], filters: Filters) -> list[Image]:
    untils = [moment(text) for text in filters.get("until", ())]
    if len(untils) > 1:
        raise InvalidInput("more than one until filter specified")
    return [
        image
        for image in images
        if has_labels(labels_of(image), filters)
        and all(image.created_at.timestamp() < limit for limit in untils)
    ]


def _known(filters: Filters, known: Sequence[str]) -> None:
    for name in filters:
        if name not in known:
            raise InvalidInput(f"invalid filter '{name}'")


def _repository(name: str) -> str:
    """node of node:20 and of node@sha256:…; host:5000/a keeps its port."""
    if "@" in name:
        return name.partition("@")[0]
    return name.rpartition(":")[0]


def _pattern(text: str) -> re.Pattern[str]:
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
