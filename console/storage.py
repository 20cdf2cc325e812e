"""Static files under names with their hash, modules' imports of each other included."""

from __future__ import annotations

from whitenoise.storage import CompressedManifestStaticFilesStorage


class HashedFiles(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """Without this an updated module would go on importing its neighbours from the cache."""

    support_js_module_import_aggregation = True
