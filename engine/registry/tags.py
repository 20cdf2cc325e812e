"""A repository's tags, one page of a registry's answer at a time (distribution-spec, Listing Tags).

Pure: which page comes next is taken from the Link header's query alone, so that no registry sends
us elsewhere with it. Leaves asking to engine.registry.client.
"""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

from engine.errors import ContentCorrupt

PAGE_LIMIT = 8 << 20
MOST_PAGES = 1000
_NEXT = re.compile(r"<([^>]*)>\s*;[^,]*\brel=\"?next\b")


def read_page(subject: str, body: bytes, link: str) -> tuple[list[str], str]:
    """(tags, the next page's query; "" behind the last). `link` is the answer's Link header.

    Raises ContentCorrupt for what is no such list."""
    try:
        tags = json.loads(body).get("tags") or []
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise ValueError("no list of names")
    except (ValueError, AttributeError) as error:
        raise ContentCorrupt(
            f"{subject} cannot be read: {error}",
            hint="check that the address is a registry's",
            subject=subject,
        ) from error
    following = _NEXT.search(link)
    return tags, urlsplit(following[1]).query if following else ""
