"""What a web process loads at its first pages, loaded before them: views, templates, languages.

The first visitor does not wait for it, and it is all there to be frozen out of Python's garbage
collection, which otherwise walks it again in the middle of some page (40 ms).
"""

from __future__ import annotations

import gc
from pathlib import Path

from django.conf import settings
from django.template import engines
from django.template.loader import get_template
from django.urls import get_resolver
from django.utils import translation


def warm_up() -> None:
    """Once, before the first request."""
    resolver = get_resolver()
    # Reading it imports the views and compiles every address.
    assert resolver.url_patterns and resolver.reverse_dict is not None
    for language, _ in settings.LANGUAGES:
        with translation.override(language):
            translation.gettext("Containers")
    for folder in engines["django"].dirs:
        for path in sorted(Path(folder).rglob("*.html")):
            get_template(str(path.relative_to(folder)))
    gc.collect()
    gc.freeze()
