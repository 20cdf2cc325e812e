"""What every test may count on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.box_site import box_site, running_box_site

__all__ = ["box_site", "running_box_site"]


@pytest.fixture(scope="session", autouse=True)
def _plain_static_files() -> Iterator[None]:
    """Pages name static files without the manifest that only collectstatic makes."""
    from django.test import override_settings

    storage = "django.contrib.staticfiles.storage.StaticFilesStorage"
    default = "django.core.files.storage.FileSystemStorage"
    with override_settings(
        STORAGES={"default": {"BACKEND": default}, "staticfiles": {"BACKEND": storage}}
    ):
        yield
