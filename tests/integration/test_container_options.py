"""What `docker run`'s options do, looked at from inside real containers."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.containers.exec import ExecRequest, Execs
from engine.containers.options import (
    Device,
    HostOptions,
    Limits,
    Throttle,
    ThrottleKind,
    Ulimit,
)
from engine.containers.running import Running
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput, PolicyDenied, WrongState
from engine.runtime import cgroups
from engine.runtime.cgroups import hierarchies
from engine.runtime.freezer import is_frozen
from tests.machine import Machine

MIB = 1 << 20


def said(machine: Machine, script: str, host: HostOptions, **settings: Any) -> list[str]:
    """The lines a container with these options prints."""
    id = machine.create(script, host=host, **settings)
    machine.start(id)
    ended = machine.finish(id)
    lines = machine.log(machine.directory(id).log).decode().splitlines()
    assert ended.code == 0, lines
    return lines


@contextmanager
def ceiling(machine: Machine, **keys: object) -> Iterator[None]:
    path = machine.config.home / "ceiling.json"
    path.write_text(json.dumps(keys))
    yield
    path.unlink()


def limit_file(machine: Machine, id: str, controller: str, v1: str, v2: str) -> str:
    top = hierarchies().of(controller)
    assert top is not None
    name = v1 if controller in hierarchies().controllers else v2
    return (top / machine.runtime.cgroup(id).lstrip("/") / name).read_text().strip()


def test_rights_and_numbers_of_its_process(machine: Machine) -> None:
    lines = said(
        machine,
        "grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp|Groups):' /proc/self/status | tr '\\t' ' ' |"
        "sed 's/ $//';"
        "ulimit -Sn; ulimit -Hn; cat /proc/sys/net/core/somaxconn; cat /proc/self/oom_score_adj;"
        "hostname; cat /proc/sys/kernel/domainname; df -k /dev/shm | tail -n 1 | tr -s ' ';"
        "touch /no 2>/dev/null || echo read-only; cat /proc/1/comm",
        HostOptions(
            cap_drop=("ALL",),
            cap_add=("net_admin", "CAP_CHOWN"),
            security_opt=("no-new-privileges:true", "seccomp=unconfined", "apparmor=unconfined"),
            group_add=("audio", "4711"),
            ulimits=(Ulimit("nofile", 100, 200),),
            sysctls={"net.core.somaxconn": "99"},
            oom_score_adj=77,
            shm_size=32 * MIB,
            read_only=True,
            init=True,
        ),
        hostname="box",
        domainname="example.test",
    )
    assert lines == [
        "Groups: 0 29 4711",
        "CapEff: 0000000000001001",
        "CapBnd: 0000000000001001",
        "NoNewPrivs: 1",
        "Seccomp: 0",
        "100",
        "200",
        "99",
        "77",
        "box",
        "example.test",
        "shm 32768 0 32768 0% /dev/shm",
        "read-only",
        "docker-init",
    ]


def test_names_and_addresses_it_is_told(machine: Machine) -> None:
    lines = said(
        machine,
        "cat /etc/hosts /etc/resolv.conf; test -w /etc/hosts || echo kept",
        HostOptions(
            extra_hosts=("db:10.1.2.3", "six:[fe80::1]"),
            dns=("9.9.9.9",),
            dns_search=("example.test",),
            dns_options=("ndots:2",),
        ),
        network_mode="none",
    )
    assert {"10.1.2.3\tdb", "fe80::1\tsix"} <= set(lines)
    assert lines[-3:] == ["nameserver 9.9.9.9", "search example.test", "options ndots:2"]


def test_devices_are_throttled(machine: Machine, tmp_path: Path) -> None:
    """Of any disk the kernel has, whatever this machine calls it."""
    number = next(Path("/sys/block").glob("*/dev")).read_text().strip()
    major, minor = map(int, number.split(":"))
    disk = tmp_path / "disk"
    os.mknod(disk, stat.S_IFBLK | 0o600, os.makedev(major, minor))
    kinds: dict[ThrottleKind, int] = {
        "read_bps": 1 << 20,
        "write_bps": 2 << 20,
        "read_iops": 30,
        "write_iops": 40,
    }
    throttles = tuple(Throttle(kind, str(disk), value) for kind, value in kinds.items())
    id = machine.create("sleep 60", host=HostOptions(throttles=throttles))
    machine.start(id)
    if "blkio" in hierarchies().controllers:
        for kind, value in kinds.items():
            file = f"blkio.throttle.{kind}_device"
            assert limit_file(machine, id, "blkio", file, "") == f"{number} {value}"
    else:
        rates = limit_file(machine, id, "io", "", "io.max").split()
        assert rates[0] == number
        assert set(rates[1:]) == {"rbps=1048576", "wbps=2097152", "riops=30", "wiops=40"}
    for path, said in (
        (tmp_path, f"no block device of this machine: {tmp_path}"),
        ("/dev/null", "no block device of this machine: /dev/null"),
        (tmp_path / "nosuch", f"stat {tmp_path}/nosuch: no such file or directory"),
    ):
        throttle = Throttle("read_bps", str(path), 1)
        other = machine.create("true", host=HostOptions(throttles=(throttle,)))
        with pytest.raises(InvalidInput, match=said):
            machine.start(other)


def test_limits_are_the_kernels_and_may_change(machine: Machine) -> None:
    limits = Limits(
        memory=64 * MIB,
        memory_reservation=32 * MIB,
        nano_cpus=500_000_000,
        cpu_shares=512,
        cpuset_cpus="0",
        pids=20,
    )
    id = machine.create("sleep 60", host=HostOptions(limits=limits))
    machine.start(id)

    def now() -> tuple[str, str, str]:
        return (
            limit_file(machine, id, "memory", "memory.limit_in_bytes", "memory.max"),
            limit_file(machine, id, "cpu", "cpu.cfs_quota_us", "cpu.max"),
            limit_file(machine, id, "pids", "pids.max", "pids.max"),
        )

    v1 = bool(hierarchies().controllers)
    assert now() == (str(64 * MIB), "50000" if v1 else "50000 100000", "20")
    assert limit_file(machine, id, "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    running = Running(machine.config, machine.runtime)
    settings = machine.containers.settings(id)
    more = replace(
        settings,
        host=HostOptions(limits=Limits(memory=128 * MIB, memory_swap=-1, nano_cpus=10**9)),
    )
    running.update(more, limits, 1)
    assert now() == (str(128 * MIB), "100000" if v1 else "100000 100000", "max")
    assert machine.containers.settings(id) == more
    machine.containers.stop(id, 1, signal.SIGKILL, 0)
    machine.finish(id)
    with pytest.raises(WrongState):
        running.update(settings, more.host.limits, 1)


def test_a_paused_container_stands_and_ends_all_the_same(machine: Machine) -> None:
    id = machine.create("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 1 & wait; done")
    machine.start(id)
    machine.wait_for(id, b"up")
    running, execs = (
        Running(machine.config, machine.runtime),
        Execs(machine.config, machine.runtime),
    )
    running.pause(id, 1)
    running.pause(id, 1)
    assert running.is_paused(id) and is_frozen(machine.runtime.cgroup(id))
    with pytest.raises(WrongState, match="paused"):
        execs.start(id, ExecRequest(("true",)))
    running.unpause(id, 1)
    assert not running.is_paused(id)
    ran = execs.start(id, ExecRequest(("true",)))
    conmon = ran.supervisor()
    assert (conmon is None or conmon.wait(10)) and ran.exit() is not None
    running.pause(id, 1)
    machine.containers.stop(id, 1, signal.SIGTERM, 10)
    assert machine.finish(id).code == 5
    machine.start(id, 2)
    running.pause(id, 2)
    machine.containers.signal(id, 2, signal.SIGKILL)
    assert machine.finish(id, 2).code == 137
    machine.start(id, 3)
    running.pause(id, 3)
    supervisor = machine.containers.observe(id).started
    assert supervisor is not None
    os.kill(supervisor.conmon_pid, signal.SIGKILL)
    assert machine.finish(id, 3).lost
    assert not cgroups.exists(machine.runtime.cgroup(id))


def test_namespaces_of_another_container(machine: Machine) -> None:
    one = machine.create(
        "echo shared > /dev/shm/mine; echo up; sleep 60",
        host=HostOptions(ipc_mode="shareable"),
        hostname="first",
    )
    machine.start(one)
    machine.wait_for(one, b"up")
    mode = f"container:{one}"
    lines = said(
        machine,
        "cat /dev/shm/mine /etc/hostname; ps -o comm | grep -c sleep; readlink /proc/self/ns/net",
        HostOptions(ipc_mode=mode, pid_mode=mode),
        network_mode=mode,
    )
    init = machine.containers.observe(one).started
    assert init is not None
    net = str(Path(f"/proc/{init.init_pid}/ns/net").readlink())
    assert lines[:3] == ["shared", "first", "1"] and lines[3] == net
    machine.containers.stop(one, 1, signal.SIGKILL, 0)
    machine.finish(one)
    assert not machine.directory(one).shm.exists()
    id = machine.create("true", host=HostOptions(pid_mode=mode))
    with pytest.raises(WrongState, match="non running"):
        machine.start(id)
    private = machine.create("sleep 60")
    machine.start(private)
    id = machine.create("true", host=HostOptions(ipc_mode=f"container:{private}"))
    with pytest.raises(InvalidInput, match="non-shareable"):
        machine.start(id)
    machine.containers.stop(private, 1, signal.SIGKILL, 0)
    machine.finish(private)


def test_privileged_and_devices(machine: Machine) -> None:
    status, own, many = said(
        machine,
        "grep CapEff /proc/self/status | cut -f 2; grep Seccomp: /proc/self/status | cut -f 2;"
        "ls /dev | wc -l",
        HostOptions(privileged=True),
    )
    assert int(status, 16).bit_count() > 20 and own == "0" and int(many) > 20
    wanted = HostOptions(devices=(Device("/dev/kmsg", "/dev/mine", "w"),))
    with ceiling(machine, devices=["/dev/kmsg"]):
        assert said(machine, ": > /dev/mine && echo open; cat /dev/mine || true", wanted) == [
            "open",
            "cat: can't open '/dev/mine': Operation not permitted",
        ]
    id = machine.create("true", host=wanted)
    with pytest.raises(PolicyDenied, match="/dev/kmsg"):
        machine.start(id)
    ruled = HostOptions(device_rules=("c 1:11 w",))
    with pytest.raises(PolicyDenied, match="/dev/kmsg"):
        machine.start(machine.create("true", host=ruled))
    with ceiling(machine, devices=["/dev/kmsg"]):
        assert said(machine, "mknod /k c 1 11; : > /k && echo open", ruled) == ["open"]
    with ceiling(machine, devices=["/dev"]), pytest.raises(InvalidInput, match="no such file"):
        machine.start(machine.create("true", host=HostOptions(devices=(Device("/dev/x", "/x"),))))


def test_an_exec_has_its_containers_rights(machine: Machine) -> None:
    host = HostOptions(cap_drop=("ALL",), group_add=("audio",), ulimits=(Ulimit("nofile", 64, 64),))
    id = machine.create("sleep 60", host=host)
    machine.start(id)
    execs = Execs(machine.config, machine.runtime)
    request = ExecRequest(("sh", "-c", "grep CapBnd /proc/self/status; id -G; ulimit -n"))

    def said_in(request: ExecRequest) -> list[bytes]:
        ran = execs.start(id, request)
        conmon = ran.supervisor()
        assert conmon is None or conmon.wait(10)
        return machine.log(ran.log).splitlines()

    assert said_in(request) == [b"CapBnd:\t0000000000000000", b"0 29", b"64"]
    with pytest.raises(PolicyDenied):
        execs.start(id, replace(request, privileged=True))
    with ceiling(machine, privileged=True):
        assert said_in(replace(request, privileged=True))[0] != b"CapBnd:\t0000000000000000"
    machine.containers.stop(id, 1, signal.SIGKILL, 0)
    machine.finish(id)


def test_what_it_uses_and_its_processes(machine: Machine) -> None:
    id = machine.create(
        "head -c 4000000 /dev/zero > /big; cat /big > /dev/null; echo up; sleep 60; true",
        host=HostOptions(limits=Limits(memory=64 * MIB, pids=20)),
    )
    machine.start(id)
    machine.wait_for(id, b"up")
    running = Running(machine.config, machine.runtime)
    first, second = running.sample(id, 1), running.sample(id, 1)
    assert first.pids == 2 and first.pids_limit == 20
    assert first.memory.limit == 64 * MIB and 0 < first.memory.used <= first.memory.usage
    assert 0 < first.cpu.total <= second.cpu.total and first.cpu.system <= second.cpu.system
    assert first.cpu.online == len(os.sched_getaffinity(0)) and first.networks == {}
    found = running.top(id, 1)
    assert found.titles[:2] == ("UID", "PID") and found.titles[-1] == "CMD"
    assert [row[-1] for row in found.processes][1] == "sleep 60"
    assert running.top(id, 1, "-o pid,comm").titles == ("PID", "COMMAND")
    assert len(running.top(id, 1, "axf").processes) == 2  # not together with -q
    for wrong in ("-o ppid=PID,pid", "-oppid=PID", "-o comm", "--nonsense"):
        with pytest.raises(InvalidInput):
            running.top(id, 1, wrong)
    machine.containers.stop(id, 1, signal.SIGKILL, 0)
    machine.finish(id)
    with pytest.raises(WrongState):
        running.sample(id, 1)


def test_settings_with_everything_survive_json(machine: Machine) -> None:
    settings = ContainerSettings(
        id="a" * 64,
        name="n",
        image="sha256:x",
        chain="",
        host=HostOptions(limits=Limits(memory=1), ulimits=(Ulimit("core", 0, -1),)),
        docker={"HostConfig": {"Memory": 1, "Init": None}},
    )
    text = json.dumps(settings.to_json())
    assert ContainerSettings.from_json(text) == settings
    assert "cap_add" not in text  # what has its default is not written
    for wrong in ({"privileged": 1}, {"ulimits": [{"name": 1}]}, {"limits": {"memory": "1g"}}, []):
        with pytest.raises(InvalidInput):
            ContainerSettings.from_json({**settings.to_json(), "host": wrong})
