"""The ORM: names, ownership, settings and history. What exists on disk is the engine core's."""

from engine.models.build import Build, BuildCacheEntry, Upload
from engine.models.container import Container, Endpoint, Network, Port
from engine.models.event import Event
from engine.models.image import Image, Tag
from engine.models.operation import Operation
from engine.models.scope import Namespace, Node
from engine.models.storage import Volume, VolumeUse
from engine.models.stream import StreamTicket, TerminalSession
from engine.models.token import ApiToken

__all__ = [
    "ApiToken",
    "Build",
    "BuildCacheEntry",
    "Container",
    "Endpoint",
    "Event",
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
    "Volume",
    "VolumeUse",
]
