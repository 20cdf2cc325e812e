"""Containers on real runc, conmon and overlayfs: their life, their ends, what crashes leave."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.containers import options
from engine.containers.layout import ContainerDir
from engine.containers.logs import Limits, LogReader, decode_tty
from engine.containers.options import HostOptions
from engine.containers.settings import ContainerSettings
from engine.errors import Conflict, InvalidInput, NotFound, WrongState
from engine.network.spec import PortBinding
from engine.runtime import cgroups, processes
from engine.runtime.conmon import resize
from tests.machine import Machine


def log_text(home: Machine, id: str) -> bytes:
    with LogReader(home.directory(id).log) as reader:
        return decode_tty(reader.read(reader.bounds()[0], 1 << 26).data)[0]


def test_a_life(machine: Machine) -> None:
    id = machine.create("echo out; echo err >&2; exit 3")
    assert machine.containers.observe(id).status == "created"
    assert machine.containers.list_on_disk() == [id]
    started = machine.start(id)
    ended = machine.finish(id)
    assert (ended.code, ended.lost, ended.oom) == (3, False, False)
    assert ended.finished_at >= started.started_at
    assert machine.containers.finish(id, 1) == ended  # idempotent
    assert machine.containers.exit_of(id, 1) == ended
    assert machine.containers.observe(id).status == "finished"
    with LogReader(machine.directory(id).log) as reader:
        lines = reader.read_lines(0)[0]
    assert sorted((line.stream, line.text) for line in lines) == [
        ("stderr", b"err"),
        ("stdout", b"out"),
    ]
    assert all(line.time.endswith("Z") for line in lines)
    machine.containers.remove(id)
    machine.containers.remove(id)
    with pytest.raises(NotFound):
        machine.containers.observe(id)


def test_started_again_it_keeps_its_files_and_its_log(machine: Machine) -> None:
    id = machine.create("echo again >> /kept; wc -l < /kept")
    for generation in (1, 2, 3):
        machine.start(id, generation)
        assert machine.finish(id, generation).code == 0
    assert log_text(machine, id) == b"1\n2\n3\n"
    assert list(machine.directory(id).attempts()) == [3]
    with pytest.raises(Conflict):
        machine.start(id, 3)


def test_two_of_one_image_are_independent(machine: Machine) -> None:
    one, two = (machine.create("ls / | grep -c made; echo x > /made") for _ in range(2))
    for id in (one, two):
        machine.start(id)
        machine.finish(id)
        assert log_text(machine, id) == b"0\n"


def test_a_start_while_another_makes_the_group_of_conmons(machine: Machine) -> None:
    """A v1 cpuset is born empty, and takes no process until it is filled: ENOSPC."""
    for top in cgroups.hierarchies().all:
        for name in ("", "conmon"):
            top.joinpath(machine.config.cgroup_parent, name).mkdir(exist_ok=True)
    id = machine.create("exit 4")
    machine.start(id)
    assert machine.finish(id).code == 4


def test_stop_by_signal_and_by_force(machine: Machine) -> None:
    polite = machine.create(
        "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 1 & wait; done"
    )
    stubborn = machine.create("trap '' TERM; echo up; sleep 93")
    for id in (polite, stubborn):
        machine.start(id)
        machine.wait_for(id, b"up")
        assert machine.containers.observe(id).running
        with pytest.raises(WrongState):
            machine.containers.finish(id, 1)
        with pytest.raises(WrongState):
            machine.containers.remove(id)
    began = time.monotonic()
    machine.containers.stop(polite, 1, signal.SIGTERM, 10)
    assert time.monotonic() - began < 5
    assert machine.containers.exit_of(polite, 1).code == 5  # type: ignore[union-attr]
    machine.containers.stop(stubborn, 1, signal.SIGTERM, 0.1)
    assert machine.containers.exit_of(stubborn, 1).code == 137  # type: ignore[union-attr]
    machine.containers.stop(stubborn, 1, signal.SIGTERM, 0.1)
    with pytest.raises(WrongState):
        machine.containers.signal(stubborn, 1, signal.SIGTERM)
    assert not processes.find("sleep", "93")


def test_signal(machine: Machine) -> None:
    id = machine.create("trap 'echo usr; exit 0' USR1; echo up; while :; do sleep 1 & wait; done")
    machine.start(id)
    machine.wait_for(id, b"up")
    machine.containers.signal(id, 1, signal.SIGUSR1)
    assert machine.finish(id).code == 0
    assert log_text(machine, id) == b"up\nusr\n"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"cmd": ("/no/such",)}, 127),
        ({"cmd": ("nosuch",)}, 127),
        ({"cmd": ("/etc/passwd",)}, 126),
        ({"user": "ghost"}, None),
        ({"cmd": ()}, None),
        ({"ports": (PortBinding(80),)}, None),
    ],
)
def test_a_start_that_fails_is_undone(
    machine: Machine,
    changes: dict[str, Any],
    code: int | None,
) -> None:
    id = machine.create("", **changes)
    with pytest.raises(InvalidInput) as caught:
        machine.start(id)
    assert caught.value.context.get("code") == code
    assert machine.containers.observe(id).status == "created"
    assert not machine.mounted(id) and machine.runtime.list() == frozenset()
    assert cgroups.children(f"/{machine.config.cgroup_parent}") <= {"conmon"}


def test_create_is_idempotent_and_takes_a_new_name(machine: Machine) -> None:
    id = machine.create("true", name="one")
    settings = machine.containers.settings(id)
    machine.containers.create(settings)
    renamed = ContainerSettings.from_json({**settings.to_json(), "name": "two"})
    machine.containers.create(renamed)
    assert machine.containers.settings(id) == renamed
    with pytest.raises(Conflict):
        machine.containers.create(
            ContainerSettings.from_json({**settings.to_json(), "image": "sha256:" + "0" * 64})
        )


def test_identity_user_environment_and_etc(machine: Machine) -> None:
    id = machine.create(
        'hostname; cat /etc/hostname; id -u; echo "$HOME $GREETING $HOSTNAME"; pwd; '
        "grep -c box /etc/hosts; test -s /etc/resolv.conf && echo resolver",
        hostname="box",
        user="app:staff",
        env=("GREETING=hi",),
        working_dir="/new/dir",
    )
    machine.start(id)
    assert machine.finish(id).code == 0
    lines = log_text(machine, id).decode().splitlines()
    assert lines[:5] == ["box", "box", "1000", "/home/app hi box", "/new/dir"]
    assert lines[5] == "0"  # docker has no line of it without a network


def test_tty_has_its_size_before_its_first_byte(machine: Machine) -> None:
    id = machine.create("stty size; read x; stty size; exit 4", tty=True, open_stdin=True)
    machine.start(id, size=(132, 43))
    machine.wait_for(id, b"43 132")
    resize(machine.directory(id).bundle, 100, 30)
    machine.type(id, b"\n")
    assert machine.finish(id).code == 4
    assert log_text(machine, id) == b"43 132\r\n\r\n30 100\r\n"
    with pytest.raises(WrongState):
        resize(machine.directory(id).bundle, 100, 30)


def test_volumes_are_filled_from_the_image_once(machine: Machine) -> None:
    id = machine.create(
        "cat /seeded/file; echo more >> /seeded/file; stat -c %a:%u /seeded; touch /new/vol/x",
        volumes=("/seeded", "/new/vol"),
    )
    for generation in (1, 2):
        machine.start(id, generation)
        assert machine.finish(id, generation).code == 0
    assert log_text(machine, id) == b"seed\n750:1000\nseed\nmore\n750:1000\n"
    # Nothing of it is in the writable layer.
    upper = machine.snapshots.upper(f"container-{id}")
    assert not (upper / "seeded/file").exists()


def test_rotation_beside_a_writing_container(machine: Machine) -> None:
    id = machine.create("i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done")
    directory = machine.directory(id)
    machine.start(id)
    rotations = 0
    while machine.containers.exit_of(id, 1) is None:
        rotations += machine.containers.rotate_logs(Limits(50_000, 1000))
        time.sleep(0.005)
    machine.finish(id)
    assert rotations > 3
    data = b""
    with LogReader(directory.log) as reader:
        while (chunk := reader.read(len(data))).data:
            assert chunk.offset == len(data)
            data += chunk.data
    assert decode_tty(data)[0] == b"".join(b"line %d\n" % n for n in range(30000))


def test_out_of_memory_is_told(machine: Machine) -> None:
    id = machine.create("tail /dev/zero", host=HostOptions(limits=options.Limits(memory=16 << 20)))
    machine.start(id)
    ended = machine.finish(id)
    assert (ended.code, ended.oom) == (137, True)


def test_a_lost_supervisor(machine: Machine) -> None:
    id = machine.create("sleep 92", tty=True)
    started = machine.start(id)
    os.kill(started.conmon_pid, signal.SIGKILL)
    conmon = processes.ProcessRef.of(started.conmon_pid)
    assert conmon is None or conmon.wait(5)
    assert machine.containers.observe(id).status == "lost"
    ended = machine.finish(id)
    assert (ended.code, ended.lost) == (137, True)
    assert not processes.find("sleep", "92") and not machine.mounted(id)


def test_conmon_lives_in_its_own_cgroup_everywhere(machine: Machine) -> None:
    id = machine.create("echo up; read x; exec sleep 91", open_stdin=True)
    started = machine.start(id)
    machine.wait_for(id, b"up")
    for line in Path(f"/proc/{started.conmon_pid}/cgroup").read_text().splitlines():
        assert line.endswith(f":/{machine.config.cgroup_parent}/conmon")
    for line in Path(f"/proc/{started.init_pid}/cgroup").read_text().splitlines():
        assert line.endswith(f":/{machine.config.cgroup_parent}/{id}")
    machine.containers.stop(id, 1, signal.SIGKILL, 0)


_STARTER = """
import json, sys
from engine.config import EngineConfig
from engine.containers.lifecycle import Containers
from engine.runtime.oci_runtime import OCIRuntime
from engine.snapshots.overlay import OverlaySnapshotter
from pathlib import Path
import os, signal

config = EngineConfig(home=Path(sys.argv[1]))
containers = Containers(
    config, OverlaySnapshotter(config.snapshots_dir),
    OCIRuntime(config.run_dir / "runtime", config.cgroup_parent), None,
)
# Die right after the n-th step of a start, as kill -9 would have it.
step = int(sys.argv[3])
count = 0
def counted(owner, name):
    before = getattr(owner, name)
    def call(*args, **kwargs):
        global count
        value = before(*args, **kwargs)
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return value
    setattr(owner, name, call)
import engine.runtime.conmon as conmon, engine.containers.attempts as attempts
import engine.containers.starter as starter
for owner, name in [
    (attempts.Attempt, "begin"), (OverlaySnapshotter, "mount"), (starter.Starter, "_write_config"),
    (conmon._Launch, "__enter__"), (conmon._Launch, "go"), (conmon.Conmon, "create"),
    (attempts.Attempt, "write_started"), (OCIRuntime, "start"),
]:
    counted(owner, name)
containers.start(sys.argv[2], 1)
"""


@pytest.mark.parametrize("step", range(1, 10))
def test_a_starter_killed_after_any_step_is_cleaned_up(
    machine: Machine,
    step: int,
) -> None:
    id = machine.create("echo up; sleep 90")
    killed = subprocess.run(
        [sys.executable, "-c", _STARTER, machine.config.home, id, str(step)],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    observed = machine.containers.observe(id)
    if step == 9:  # one more than there are: the start went through
        assert killed.returncode == 0 and observed.running
    elif step == 8:  # killed after the start itself: nothing is missing
        assert killed.returncode == -signal.SIGKILL and observed.running
    else:
        assert killed.returncode == -signal.SIGKILL and observed.status == "starting"
        assert machine.containers.finish(id, 1) is not None
    if observed.running:
        machine.containers.stop(id, 1, signal.SIGKILL, 0)
        machine.finish(id)
    assert not processes.find("sleep", "90")
    assert not machine.mounted(id)
    assert machine.runtime.list() == frozenset()
    assert cgroups.children(f"/{machine.config.cgroup_parent}") <= {"conmon"}
    machine.start(id, 2)
    machine.wait_for(id, b"up")
    machine.containers.stop(id, 2, signal.SIGKILL, 0)


def test_a_starter_killed_at_any_time_is_cleaned_up(machine: Machine) -> None:
    """By the clock this time: inside runc's create as well, where it leaks cgroups."""
    id = machine.create("sleep 89")
    script = _STARTER.replace("step = int(sys.argv[3])", "step = -1; print(flush=True)")
    for generation in range(1, 9):
        with subprocess.Popen(
            [
                *(sys.executable, "-c", script.replace("[2], 1)", f"[2], {generation})")),
                *(str(machine.config.home), id, "0"),
            ],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
        ) as starter:
            assert starter.stdout is not None
            starter.stdout.readline()
            time.sleep(generation * 0.006)
            starter.kill()
        if machine.containers.observe(id).running:
            machine.containers.stop(id, generation, signal.SIGKILL, 0)
        machine.containers.finish(id, generation)
        assert not processes.find("sleep", "89")
        assert not machine.mounted(id) and machine.runtime.list() == frozenset()
        assert cgroups.children(f"/{machine.config.cgroup_parent}") <= {"conmon"}


def test_a_lock_waits_and_leaves_no_folder(machine: Machine) -> None:
    directory = ContainerDir(machine.config, secrets.token_hex(32))
    with directory.lock():
        assert directory.path.is_dir()
    assert not directory.path.exists()
    id = machine.create("true")
    with machine.directory(id).lock():
        machine.containers.remove(id)
    assert not machine.directory(id).path.exists()


def test_settings_survive_json() -> None:
    settings = ContainerSettings(
        id="a" * 64,
        name="n",
        image="sha256:x",
        chain="",
        ports=(PortBinding(80, "udp", "127.0.0.1", 53),),
        labels={"a": "b"},
        host=HostOptions(limits=options.Limits(nano_cpus=500_000_000)),
    )
    assert ContainerSettings.from_json(json.dumps(settings.to_json())) == settings
    assert ContainerSettings.from_json({**settings.to_json(), "later": 1}) == settings
    for broken in ("[]", "{}", '{"id": "../x", "name": "", "image": "", "chain": ""}'):
        with pytest.raises(InvalidInput):
            ContainerSettings.from_json(broken)
