"""Layers of file systems: stacked, mounted, taken from and turned into tars."""

from engine.snapshots.apply import ARCHIVE, LAYER, Applied, Rules, apply_layer
from engine.snapshots.compress import LayerReader, LayerWriter, WrittenLayer, open_layer
from engine.snapshots.diff import LayerStats, write_layer
from engine.snapshots.overlay import OverlaySnapshotter
from engine.snapshots.protocol import SnapshotInfo, Snapshotter
from engine.snapshots.usage import Usage, usage_of

__all__ = [
    "ARCHIVE",
    "LAYER",
    "Applied",
    "LayerReader",
    "LayerStats",
    "LayerWriter",
    "OverlaySnapshotter",
    "Rules",
    "SnapshotInfo",
    "Snapshotter",
    "Usage",
    "WrittenLayer",
    "apply_layer",
    "open_layer",
    "usage_of",
    "write_layer",
]
