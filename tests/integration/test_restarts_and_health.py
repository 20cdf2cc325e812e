"""Restart policies and health checks on real containers, with engined's own threads beside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.containers.options import HostOptions, RestartPolicy
from engine.errors import InvalidInput, WrongState
from engine.models import Container, Event, Namespace
from engine.oci import Healthcheck
from engine.services import containers
from engine.services.work import starts
from engine.services.work.health import Prober
from engine.services.work.restarts import Restarter, bring_up
from engine.services.work.supervisor import Supervisor
from tests.services_home import ACTOR, done, ended, eventually, log_of, run

pytestmark = pytest.mark.django_db(transaction=True)
State = Container.State
MS = 10**6


@pytest.fixture
def engined(services_home: EngineConfig) -> Iterator[None]:
    """What engined has besides the supervisor that records ends (tests.services_home)."""
    prober, restarter = Prober(), Restarter(starts.start_again)
    supervisor = Supervisor(services_home.exits_dir, lambda *_: None, begun=prober.begun)
    for thread in (prober, restarter, supervisor):
        thread.start()
    yield
    supervisor.stop()
    restarter.stop()
    prober.stop()


def policy(name: Any, most: int = 0) -> HostOptions:
    return HostOptions(restart=RestartPolicy(name, most))


def state(container: Container) -> str:
    container.refresh_from_db()
    return container.state


def actions(container: Container) -> list[str]:
    found = Event.objects.filter(actor_id=container.uid).order_by("pk")
    return [event.action for event in found if event.action in ("start", "die", "stop", "destroy")]


def test_always_starts_again_and_waits_longer_each_time(node: Namespace, engined: None) -> None:
    made = run(node, "sh", "-c", "echo up; exit 3", host=policy("always"))
    eventually(lambda: state(made) == State.RESTARTING and made.restart_count >= 3)
    assert log_of(made).count("up") >= 3
    assert made.exit_code == 3
    assert made.restart_at is not None
    assert made.finished_at is not None
    assert (made.restart_at - made.finished_at).total_seconds() >= 0.3
    with pytest.raises(WrongState, match="restarting"):
        containers.container_remove(made, ACTOR)
    with pytest.raises(WrongState):
        containers.container_start(made, ACTOR)
    done(containers.container_stop(made, ACTOR))
    assert state(made) == State.EXITED
    assert made.restart_at is None
    starts = actions(made).count("start")
    time.sleep(0.9)
    assert actions(made).count("start") == starts
    done(containers.container_start(made, ACTOR))
    made.refresh_from_db()
    assert (made.restart_count <= 1, made.stopped_by_hand) == (True, False)
    eventually(lambda: state(made) == State.RESTARTING)
    done(containers.container_remove(made, ACTOR, force=True))
    assert not Container.objects.filter(pk=made.pk).exists()


def test_on_failure_gives_up_after_its_retries(node: Namespace, engined: None) -> None:
    made = run(node, "sh", "-c", "echo up; exit 1", host=policy("on-failure", 2))
    assert ended(made) == 1
    assert made.restart_count == 2
    assert log_of(made).count("up") == 3
    good = run(node, "true", host=policy("on-failure"))
    assert ended(good) == 0
    assert good.restart_count == 0


def test_an_end_by_hand_stays_one(node: Namespace, engined: None) -> None:
    stopped = run(node, "sleep", "99", host=policy("always"))
    done(containers.container_stop(stopped, ACTOR, grace=0))
    killed = run(node, "sleep", "99", host=policy("unless-stopped"))
    done(containers.container_kill(killed, ACTOR))
    assert ended(killed) == 137
    assert state(stopped) == State.EXITED
    assert (stopped.stopped_by_hand, killed.stopped_by_hand) == (True, True)
    # A signal that is no stop: the process's own end is undone.
    hurt = run(
        node, "sh", "-c", "trap 'exit 5' USR1; while :; do sleep 0.02; done", host=policy("always")
    )
    done(containers.container_kill(hurt, ACTOR, signal="USR1"))
    eventually(lambda: state(hurt) == State.RUNNING and hurt.restart_count == 1)
    done(containers.container_stop(hurt, ACTOR, grace=0))


def test_what_comes_up_with_the_engine(node: Namespace, services_home: EngineConfig) -> None:
    names = ("always", "unless-stopped", "no")
    made = {name: run(node, "sleep", "99", host=policy(name)) for name in names}
    by_hand = run(node, "sleep", "99", host=policy("unless-stopped"))
    for container in (*made.values(), by_hand):
        done(containers.container_stop(container, ACTOR, grace=0))
    # As after a crash of the machine: nobody asked for it.
    Container.objects.filter(pk=made["unless-stopped"].pk).update(stopped_by_hand=False)
    never, operation = containers.container_create(
        node,
        containers.ContainerRequest(image="node", command=("sleep", "9"), host=policy("always")),
        ACTOR,
    )
    done(operation)
    assert len(bring_up()) == 2
    for name in ("always", "unless-stopped"):
        starts.start_again(made[name].uid)
        assert state(made[name]) == State.RUNNING
    assert [state(c) for c in (made["no"], by_hand, never)] == ["exited", "exited", "created"]
    # One whose policy was changed while it waited.
    for name in ("always", "unless-stopped"):
        done(containers.container_stop(made[name], ACTOR, grace=0))
    assert len(bring_up()) == 1
    done(containers.container_update(made["always"], ACTOR, restart=RestartPolicy("no")))
    starts.start_again(made["always"].uid)
    assert state(made["always"]) == State.EXITED


def test_one_that_cannot_be_started_again_stays_down(node: Namespace, engined: None) -> None:
    made = run(node, "sh", "-c", "rm /bin/sh; exit 1", host=policy("always"))
    eventually(lambda: state(made) == State.EXITED)
    assert made.error is not None
    assert "sh" in made.error["message"]


def test_rm_and_a_policy_do_not_go_together(node: Namespace) -> None:
    with pytest.raises(InvalidInput, match="can't create 'AutoRemove' container"):
        run(node, "true", auto_remove=True, host=policy("always"))


def check(text: str, **more: int) -> Healthcheck:
    values = {"interval": 100 * MS, "timeout": 5000 * MS, "retries": 2, **more}
    return Healthcheck(("CMD-SHELL", text), **values)


def status(container: Container) -> str:
    container.refresh_from_db()
    return (container.health or {}).get("status", "")


def test_health_goes_up_and_down_with_the_probe(node: Namespace, engined: None) -> None:
    made = run(
        node,
        *("sleep", "99"),
        healthcheck=check("echo saw $HOSTNAME; cat /ok"),
        hostname="probed",
        env=("HOSTNAME=probed",),
    )
    assert made.health == {"status": "starting", "failing_streak": 0, "log": []}
    eventually(lambda: status(made) == "unhealthy")
    assert made.health is not None
    assert made.health["failing_streak"] >= 2
    last = made.health["log"][-1]
    assert last["exit_code"] == 1
    assert "saw probed" in last["output"]
    assert "/ok" in last["output"]
    assert last["start"] < last["end"]
    done(containers.container_stop(made, ACTOR, grace=0))
    assert status(made) == "unhealthy"
    told = Event.objects.filter(actor_id=made.uid, action__startswith="health_status")
    assert [event.action for event in told] == ["health_status: unhealthy"]


def test_a_healthy_one_and_one_without(node: Namespace, engined: None) -> None:
    made = run(node, "sleep", "99", healthcheck=check("true"))
    plain = run(node, "sleep", "99", healthcheck=Healthcheck(("NONE",)))
    eventually(lambda: status(made) == "healthy")
    assert plain.health is None
    eventually(lambda: len((Container.objects.get(pk=made.pk).health or {})["log"]) == 5)
    done(containers.container_restart(made, ACTOR, grace=0))
    eventually(lambda: status(made) == "healthy")
    for container in (made, plain):
        done(containers.container_stop(container, ACTOR, grace=0))
    assert Event.objects.filter(actor_id=made.uid, action="health_status: healthy").count() == 2


def test_a_probe_that_hangs_is_ended_in_its_time(node: Namespace, engined: None) -> None:
    made = run(
        node, "sleep", "99", healthcheck=check("echo wait; sleep 60", timeout=200 * MS, retries=1)
    )
    eventually(lambda: status(made) == "unhealthy")
    assert made.health is not None
    (entry, *_) = made.health["log"]
    assert entry["exit_code"] == -1
    assert entry["output"].startswith("Health check exceeded timeout (0.2s): wait")
    done(containers.container_stop(made, ACTOR, grace=0))
