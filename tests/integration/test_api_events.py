"""GET /events: history, filters, and what happens while somebody listens."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.box_site import BoxSite
from tests.engine_api import EngineApi


@pytest.fixture
def api(running_box_site: BoxSite) -> Iterator[EngineApi]:
    yield EngineApi.of(running_box_site)
    running_box_site.remove_all()


def past(api: EngineApi, since: float, **filters: list[str]) -> list[dict[str, Any]]:
    asked = quote(json.dumps(filters))
    answer = api.get(f"/events?since={since}&until={time.time():.6f}&filters={asked}")
    assert answer.status == 200
    return [json.loads(line) for line in answer.body.splitlines()]


def test_the_events_of_a_life(api: EngineApi, running_box_site: BoxSite) -> None:
    began = time.time()
    box = running_box_site.run("exec sleep 100", labels={"who": "me"})
    running_box_site.operate(box, "stop", grace=0)
    running_box_site.operate(box, "remove")
    found = past(api, began, type=["container"])
    actions = [one["Action"] for one in found]
    assert actions == ["create", "start", "kill", "kill", "die", "stop", "destroy"]
    died = found[4]
    assert died["status"] == "die"
    assert (died["id"], died["from"], died["scope"]) == (box.uid, "box", "local")
    assert died["Actor"]["Attributes"] == {
        "exitCode": "137",
        "image": "box",
        "name": box.name,
        "who": "me",
    }
    assert died["timeNano"] // 10**9 == died["time"]
    for filters, wanted in (
        ({"event": ["die", "start"]}, ["start", "die"]),
        ({"container": [box.name], "event": ["destroy"]}, ["destroy"]),
        ({"container": [box.uid[:12]], "event": ["create"]}, ["create"]),
        ({"container": ["nobody"]}, []),
        ({"label": ["who=me"], "type": ["container"], "event": ["stop"]}, ["stop"]),
        ({"label": ["who=you"]}, []),
        ({"image": ["box"], "event": ["kill"]}, ["kill", "kill"]),
        ({"network": ["bridge"]}, ["connect", "disconnect"]),
    ):
        assert [one["Action"] for one in past(api, began, **filters)] == wanted, filters


def test_who_listens_hears_at_once(api: EngineApi, running_box_site: BoxSite) -> None:
    heard: list[tuple[str, float]] = []
    asked = quote(json.dumps({"type": ["container"]}))

    listening = threading.Event()

    def listen() -> None:
        with api.begun("GET", f"/events?filters={asked}") as answer:
            listening.set()
            while ("destroy" not in dict(heard)) and (piece := answer.read1(65536)):
                for line in piece.splitlines():
                    event = json.loads(line)
                    heard.append((event["Action"], time.time() - event["timeNano"] / 1e9))

    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(10)
    box = running_box_site.run("exec sleep 100")
    running_box_site.operate(box, "remove", force=True)
    thread.join(20)
    assert not thread.is_alive()
    assert [action for action, _ in heard] == ["create", "start", "kill", "die", "destroy"]
    # Told, and not found by the look each second.
    assert sorted(late for _, late in heard)[2] < 0.5


def test_moments_that_are_none(api: EngineApi) -> None:
    assert api.get("/events?since=yesterday").status == 400
    assert api.get("/events?filters=x").status == 400


def test_old_events_are_trimmed(running_box_site: BoxSite) -> None:
    left = running_box_site.call(
        """
        from datetime import timedelta
        from engine.services.work import reconcile
        Event.objects.all().delete()
        now = timezone.now()
        for age in (timedelta(days=2), timedelta(hours=2), timedelta(0)):
            Event.objects.create(
                namespace=namespace, type="image", action="tag", actor_id=str(age), at=now - age
            )
        reconcile._trim_events(now)
        first = Event.objects.count()
        reconcile._MOST_EVENTS = 1
        reconcile._trim_events(now)
        reconcile._MOST_EVENTS = 10_000
        result = [first, list(Event.objects.values_list("actor_id", flat=True))]
        """
    )
    assert left == [2, ["0:00:00"]]
