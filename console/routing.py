"""Websocket addresses (interface.md: Sockets). Each consumer declares its permission."""

from __future__ import annotations

from django.urls import re_path

from console.consumers.base import UnknownConsumer
from console.consumers.builds import BuildsConsumer
from console.consumers.events import EventsConsumer
from console.consumers.logs import LogsConsumer
from console.consumers.stats import StatsConsumer
from console.consumers.terminals import TerminalsConsumer

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

websocket_urlpatterns = [
    re_path(r"^ws/events/$", EventsConsumer.as_asgi()),
    re_path(r"^ws/logs/(?P<uid>[0-9a-f]{64})/$", LogsConsumer.as_asgi()),
    re_path(r"^ws/stats/(?P<uid>[0-9a-f]{64})/$", StatsConsumer.as_asgi()),
    re_path(r"^ws/builds/(?P<pk>[0-9]{1,18})/$", BuildsConsumer.as_asgi()),
    re_path(rf"^ws/terminals/(?P<session>{_UUID})/$", TerminalsConsumer.as_asgi()),
    re_path(r"", UnknownConsumer.as_asgi()),
]
