"""Layers of file systems: stacked, mounted, taken from and turned into tars."""

from engine.snapshots.overlay import OverlaySnapshotter
from engine.snapshots.protocol import SnapshotInfo, Snapshotter
from engine.snapshots.usage import Usage

__all__ = ["OverlaySnapshotter", "SnapshotInfo", "Snapshotter", "Usage"]
