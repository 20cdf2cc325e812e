"""Blobs by digest: what was pulled, built or pushed, once on disk and shared by every image."""

from engine.content.ingest import Ingest
from engine.content.store import ContentStore, Info

__all__ = ["ContentStore", "Info", "Ingest"]
