"""A container's Stats tab: what it uses, live. The figures come by /ws/stats/; stats.js draws."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext

from console.container_facts import processors, settings_of
from console.permissions import Permission
from console.views.base import TeamRequest, team_view
from console.views.container import container_of, container_page


@team_view(Permission.INSPECT)
def container_stats(request: TeamRequest, name: str) -> HttpResponse:
    container = container_of(request, name)
    charts = [
        ("cpu", gettext("Processor"), ()),
        ("memory", gettext("Memory"), ()),
        ("network", gettext("Network"), (gettext("received"), gettext("sent"))),
        ("disk", gettext("Disk"), (gettext("read"), gettext("written"))),
        ("pids", gettext("Processes"), ()),
    ]
    settings = settings_of(container)
    extra = {
        "charts": charts,
        "cpus": processors(settings.host.limits),
        "uncounted": settings.network_mode == "host",
    }
    return render(
        request, "containers/stats.html", container_page(request, container, "stats", extra)
    )
