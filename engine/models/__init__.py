"""The ORM: names, ownership, settings and history. What exists on disk is the engine core's."""

from engine.models.build import Build, BuildCacheEntry, Upload
from engine.models.container import Container, Endpoint, Network, Port
from engine.models.image import Image, Tag
from engine.models.operation import Operation
from engine.models.scope import Namespace, Node
from engine.models.stream import StreamTicket, TerminalSession

__all__ = [
    "Build",
    "BuildCacheEntry",
    "Container",
    "Endpoint",
    "Image",
    "Namespace",
    "Network",
    "Node",
    "Operation",
    "Port",
    "StreamTicket",
    "Tag",
    "TerminalSession",
    "Upload",
]
