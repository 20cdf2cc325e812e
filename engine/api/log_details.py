"""What `docker logs --details` sets before each line: the labels and variables a container's log
options name, as moby's json-file has them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote_plus

from engine.containers.settings import ContainerSettings


def details(settings: ContainerSettings) -> bytes:
    """`a=1,b=2 `, by name; a space alone where nothing is named, as in Docker."""
    options = settings.host.log.options
    variables = {
        name: value for name, sign, value in (e.partition("=") for e in settings.env) if sign
    }
    found = {
        **dict(_named(settings.labels, options, "labels")),
        **dict(_named(variables, options, "env")),
    }
    if tag := options.get("tag"):
        found["tag"] = tag
    pairs = sorted(f"{quote_plus(name)}={quote_plus(value)}" for name, value in found.items())
    return f"{','.join(pairs)} ".encode()


def _named(
    values: Mapping[str, str], options: Mapping[str, str], option: str
) -> Iterator[tuple[str, str]]:
    names = options.get(option, "").split(",")
    pattern = options.get(f"{option}-regex")
    for name, value in values.items():
        if name in names or (pattern and re.search(pattern, name)):
            yield name, value
