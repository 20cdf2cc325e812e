"""Images on disk: pulled, unpacked, collected. Joins registry, content and snapshots."""
