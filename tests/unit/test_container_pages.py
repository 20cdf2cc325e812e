"""A container's pages: health and restarts are shown, settings are told in plain words, limits
and networks are changed with every mistake at its field."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.utils import timezone

from engine.containers.options import (
    Device,
    EndpointSettings,
    HostOptions,
    Limits,
    LogConfig,
    Mount,
    RestartPolicy,
    Throttle,
    Ulimit,
)
from engine.containers.settings import ContainerSettings
from engine.models import Container, Operation, Volume, VolumeUse
from engine.network.spec import PortBinding
from engine.oci import Healthcheck
from engine.services import addresses, namespaces, networks
from engine.services.networks import NetworkRequest
from tests.unit.console_rows import Site, make_container, make_image, make_site

pytestmark = pytest.mark.django_db
MIB = 1 << 20


@pytest.fixture
def site() -> Site:
    return make_site()


def made(site: Site, name: str = "web", *, row: dict[str, Any], **values: Any) -> Container:
    """A container with these settings; `row` are the row's own fields."""
    container = make_container(site, make_image(site), name, **row)
    settings = ContainerSettings(
        id=container.uid, name=name, image="", chain="", cmd=("sh",), hostname=name, **values
    )
    container.settings = settings.to_json()
    container.save()
    return container


def page(site: Site, path: str, **headers: str) -> str:
    response = site.client.get(f"{site.base}containers/{path}", headers=headers)
    assert response.status_code == 200, path
    return str(response.content.decode())


def text(html: str, part: str = "") -> str:
    """What a person reads, in one line; of the element with that id alone."""
    if part:
        found = re.search(rf'<(\w+)[^>]*\bid="{part}".*?</\1>', html, re.DOTALL)
        assert found, part
        html = found[0]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def probe(code: int, output: str, seconds: int) -> dict[str, Any]:
    at = (timezone.now() - timedelta(seconds=seconds)).isoformat()
    return {"start": at, "end": at, "exit_code": code, "output": output}


CHECK = Healthcheck(
    test=("CMD-SHELL", "wget -q localhost"),
    interval=7 * 10**9,
    timeout=2 * 10**9,
    start_period=60 * 10**9,
    retries=4,
)


def test_an_unhealthy_one_says_so_and_what_its_probes_said(site: Site) -> None:
    health = {
        "status": "unhealthy",
        "failing_streak": 6,
        "log": [probe(0, "fine", 20), probe(-1, "", 10), probe(1, "connection refused", 3)],
    }
    row = {"state": "running", "started_at": timezone.now(), "health": health}
    made(site, row=row, healthcheck=CHECK)
    logs = page(site, "web/logs/")
    assert "unhealthy" in text(logs, "container-head")
    assert "failed 6 times in a row: connection refused" in text(logs, "container-health")
    assert "<details" in logs and re.search(r"<details[^>]*\bopen", logs)
    shown = text(page(site, "web/inspect/"), "facts-health")
    for words in (
        "unhealthy, failed 6 times in a row",
        "/bin/sh -c wget -q localhost",
        "every 7 s, each within 2 s",
        "for 60 s, every 5 s, failures do not count",
        "after 4 failures in a row",
        "code 1 connection refused",
        "took too long",
        "code 0 fine",
    ):
        assert words in shown, (words, shown)
    assert "연속 6번 실패" in page(site, "web/inspect/", **{"accept-language": "ko"})


def test_a_healthy_one_and_one_that_is_not_checked(site: Site) -> None:
    health = {"status": "healthy", "failing_streak": 0, "log": [probe(0, "", 3)]}
    made(site, row={"state": "running", "health": health}, healthcheck=CHECK)
    logs = page(site, "web/logs/")
    assert "healthy" in text(logs, "container-head")
    # Probes that go well come and go without moving the page.
    assert text(logs, "container-health") == ""
    make_container(site, make_image(site), "bare", state="running")
    bare = page(site, "bare/inspect/")
    assert "None: that it runs is all that is known." in text(bare, "facts-health")
    assert text(page(site, "bare/logs/"), "container-health") == ""


def test_restarts_are_counted_and_the_next_one_is_told(site: Site) -> None:
    row = {
        "state": "restarting",
        "exit_code": 3,
        "restart_count": 4,
        "restart_at": timezone.now() + timedelta(seconds=40),
        "finished_at": timezone.now(),
    }
    made(site, row=row, host=HostOptions(restart=RestartPolicy("on-failure", 9)))
    inspect = page(site, "web/inspect/")
    assert re.search(r"restarting in (40|39) s \(4\)", text(inspect, "container-head"))
    shown = text(inspect, "facts-restarts")
    assert "when it fails, at most 9 times" in shown and "4 times so far" in shown
    assert re.search(r"Next try in (40|39) s", shown)
    assert 'data-time="until"' in inspect
    assert "stop/" in inspect  # what waits to be started can be stopped


EVERYTHING = HostOptions(
    limits=Limits(
        memory=512 * MIB,
        memory_swap=512 * MIB,
        memory_reservation=96 * MIB,
        memory_swappiness=10,
        oom_kill_disable=True,
        nano_cpus=15 * 10**8,
        cpu_shares=2048,
        cpuset_cpus="0-1",
        cpuset_mems="0",
        blkio_weight=300,
        pids=77,
    ),
    log=LogConfig("local", {"max-size": "3m"}),
    shm_size=128 * MIB,
    ulimits=(Ulimit("nofile", 1024, 2048), Ulimit("core", -1, -1)),
    cap_add=("NET_ADMIN",),
    cap_drop=("CHOWN",),
    security_opt=("no-new-privileges", "seccomp=unconfined"),
    privileged=True,
    read_only=True,
    init=True,
    tmpfs={"/run": "size=1m"},
    mounts=(
        Mount("bind", "/etc/app", source="/srv/app", read_only=True),
        Mount("volume", "/data", name="data"),
    ),
    group_add=("audio",),
    devices=(Device("/dev/fuse", "/dev/fuse", "rw"),),
    device_rules=("c 7:* rmw",),
    throttles=(
        Throttle("read_bps", "/dev/sda", 3 * MIB),
        Throttle("write_bps", "/dev/sda", 1 * MIB),
        Throttle("read_iops", "/dev/sda", 120),
        Throttle("write_iops", "/dev/sda", 60),
        Throttle("weight", "/dev/sda", 200),
    ),
    sysctls={"net.ipv4.ip_forward": "1"},
    extra_hosts=("db:10.0.0.9",),
    dns=("9.9.9.9",),
    pid_mode="host",
    oom_score_adj=-500,
    annotations={"a": "b"},
)


def test_everything_it_was_made_with_is_told_in_plain_words(site: Site) -> None:
    container = made(
        site,
        row={"state": "exited", "exit_code": 137, "oom_killed": True},
        host=EVERYTHING,
        labels={"tier": "db"},
        stop_signal="SIGINT",
        stop_timeout=3,
        exposed_ports=("80/tcp", "9/udp"),
        ports=(PortBinding(80),),
    )
    Container.objects.filter(pk=container.pk).update(finished_at=timezone.now())
    data = Volume.objects.create(namespace=site.namespace, name="data")
    VolumeUse.objects.create(volume=data, container=container, destination="/data")
    asked = NetworkRequest("back", subnet="10.77.0.0/24", internal=True)
    back = networks.network_create(site.namespace, asked)
    address = "10.77.0.9"
    wishes = EndpointSettings(ipv4=address)
    endpoint = addresses.take(back, container=container, wishes=wishes)
    html = page(site, "web/inspect/")
    for part, wanted in {
        "facts-limits": (
            *("Memory 512 MiB", "Swap none", "96 MiB", "Swappiness 10", "it waits"),
            *("Processors 1.5", "2048, where 1024 is usual", "0-1", "300, where 500 is usual"),
            *("Processes 77", "128 MiB", "nofile 1024, at most 2048", "core unlimited"),
            *("reads 3 MiB a second at most", "writes 1 MiB a second", "at most 120 reads a"),
            *("at most 60 writes a second", "/dev/sda: share 200"),
        ),
        "facts-rights": (
            *("Privileged", "NET_ADMIN", "CHOWN", "no new privileges", "seccomp=unconfined"),
            *("read-only: it writes", "--init", "audio", "/dev/fuse (rw)", "c 7:* rmw"),
            *("net.ipv4.ip_forward=1", "processes: the machine's", "-500 of -1000", "a=b"),
            *("local max-size=3m", "SIGINT, killed after 3 s"),
        ),
        "places": (
            *("/data data volume read and write", "/etc/app /srv/app folder of the machine"),
            *("read-only", "/run in memory (tmpfs)", "size=1m"),
        ),
        "networks": ("back internal", address, endpoint.mac, container.short_id),
        "facts": ("it ran out of memory", "9.9.9.9", "db:10.0.0.9", "tier=db", "9/udp"),
    }.items():
        shown = text(html, part)
        for words in wanted:
            assert words in shown, (words, shown)
    assert f'href="{site.base}volumes/v/data/"' in html
    assert f'href="{site.base}networks/n/{back.uid[:12]}/"' in html


def test_what_is_at_its_default_is_left_out(site: Site) -> None:
    made(site, row={"state": "running"})
    html = page(site, "web/inspect/")
    assert text(html, "facts-limits") == "Limits None: it may use all the machine has."
    assert text(html, "facts-restarts") == "Restarts Started again by itself never"
    assert "The usual ones" in text(html, "facts-rights")
    assert "None: what it writes goes with it." in text(html, "places")
    assert "It is on none" in text(html, "networks")
    for mode, words in (("none", "made without a network"), ("host", "machine's own network")):
        made(site, f"on-{mode}", row={}, network_mode=mode)
        assert words in text(page(site, f"on-{mode}/inspect/"), "networks")
        assert "connect/" not in page(site, f"on-{mode}/settings/")


def test_the_stats_tab_knows_its_limits(site: Site) -> None:
    made(site, row={"state": "exited"}, host=HostOptions(limits=Limits(nano_cpus=5 * 10**8)))
    html = page(site, "web/stats/")
    assert 'data-cpus="0.5"' in html and "It does not run." in html
    assert html.count("data-chart=") == 5
    made(site, "hosted", row={"state": "running"}, network_mode="host")
    assert "data-uncounted" in page(site, "hosted/stats/")


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        ({"memory": "64m", "memory_swap": "32m"}, "memory_swap", "cannot be less than the memory"),
        ({"memory_swap": "32m"}, "memory_swap", "give a limit for the memory too"),
        ({"memory_swap": "much"}, "memory_swap", "is no size"),
        ({"memory": "1m"}, "memory", "Less than 6 MB"),
        ({"cpus": "4000"}, "cpus", "more cannot be given"),
        ({"restart": "always", "retries": "3"}, "retries", "counts its tries"),
    ],
)
def test_a_wrong_limit_is_told_at_its_field(
    site: Site, data: dict[str, str], field: str, words: str
) -> None:
    made(site, row={"state": "running"})
    response = site.client.post(f"{site.base}containers/web/limits/", {"restart": "no", **data})
    assert response.status_code == 422
    html = response.content.decode()
    assert words in text(html, f"id_{field}_error")
    assert Operation.objects.count() == 0
    # The page it leaves in the browser's address can be asked for.
    assert site.client.get(f"{site.base}containers/web/limits/").status_code == 302


def test_limits_show_as_asked_for_and_how_that_went(site: Site) -> None:
    container = made(site, row={"state": "running"}, host=HostOptions(limits=Limits(pids=5)))
    address = f"{site.base}containers/web/limits/"
    data = {"memory": "64m", "memory_swap": "-1", "restart": "on-failure", "retries": "2"}
    assert site.client.post(address, data).status_code == 302
    operation = Operation.objects.get()
    assert operation.args["limits"] == {"memory": 64 * MIB, "memory_swap": -1}
    assert operation.args["restart"] == {"name": "on-failure", "max_retries": 2}
    html = page(site, "web/settings/")
    assert 'value="64m"' in html and 'value="-1"' in html and 'value="2"' in html
    assert "It is being changed" in text(html, "limits-now")
    error = {"id": "runtime", "message": "no", "hint": "", "context": {}}
    Operation.objects.update(state="failed", error=error)
    html = page(site, "web/settings/")
    assert "It was not changed." in html and 'value="64m"' not in html
    Operation.objects.update(state="done", error=None, finished_at=timezone.now())
    assert "Changed just now" in text(page(site, "web/settings/"), "limits-now")
    # The memory that is as much again goes without saying.
    host = HostOptions(limits=Limits(memory=64 * MIB, memory_swap=128 * MIB))
    settings = ContainerSettings.from_json(container.settings)
    container.settings = {**settings.to_json(), **ContainerSettings(
        id=container.uid, name="web", image="", chain="", host=host
    ).to_json()}  # fmt: skip
    container.save()
    Operation.objects.all().delete()
    site.client.post(address, {"memory": "32m", "restart": "no"})
    assert Operation.objects.get().args["limits"] == {
        "memory": 32 * MIB,
        "memory_swap": 64 * MIB,
    }


def test_networks_are_joined_and_left_from_its_page(site: Site) -> None:
    container = made(site, row={"state": "running"})
    bridge = namespaces.network_default(site.namespace)
    addresses.take(bridge, container=container)
    back = networks.network_create(site.namespace, NetworkRequest("back"))
    settings = page(site, "web/settings/")
    assert "bridge" in text(settings, "networks") and "web/connect/" in settings
    form = page(site, "web/connect/")
    assert f'value="{back.pk}"' in form and f'value="{bridge.pk}"' not in form
    address = f"{site.base}containers/web/connect/"
    wrong = site.client.post(address, {"network": back.pk, "ipv4": "10.1.1.1"})
    assert wrong.status_code == 422
    assert site.client.post(address, {"network": bridge.pk}).status_code == 422
    data = {"network": back.pk, "aliases": "db store"}
    assert site.client.post(address, data).status_code == 302
    operation = Operation.objects.get()
    assert operation.kind == "container.connect" and operation.args["aliases"] == ["db", "store"]
    Operation.objects.all().delete()
    leave = f"{site.base}containers/web/disconnect/"
    assert site.client.post(leave, {"network": bridge.pk}).status_code == 302
    assert Operation.objects.get().kind == "container.disconnect"
    assert site.client.post(leave, {"network": "x"}).status_code == 302
    assert Operation.objects.count() == 1
