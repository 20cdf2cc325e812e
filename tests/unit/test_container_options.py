"""What a container may ask for: moby's checks, root's ceiling, and what the runtime is told."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from engine.ceiling import Ceiling
from engine.containers import checks, policy
from engine.containers.device_rules import DeviceRule
from engine.containers.logs import DEFAULT_LIMITS
from engine.containers.logs import Limits as LogLimits
from engine.containers.options import (
    Device,
    HostOptions,
    Limits,
    LogConfig,
    Mount,
    RestartPolicy,
    Ulimit,
)
from engine.containers.rotation import limits_of
from engine.containers.security import Security, security
from engine.containers.settings import ContainerSettings
from engine.containers.top import read
from engine.errors import EngineError, InvalidInput, PolicyDenied, Unsupported
from engine.network.spec import PortBinding
from engine.oci import Healthcheck
from engine.runtime.resources import Support, as_oci, changes, fitting, merged

MIB = 1 << 20
EVERYTHING = Support(*[True] * 12)


def settings(host: HostOptions | None = None, **changes: Any) -> ContainerSettings:
    return ContainerSettings(
        id="a" * 64, name="n", image="i", chain="", host=host or HostOptions(), **changes
    )


def limited(**limits: Any) -> HostOptions:
    return HostOptions(limits=Limits(**limits))


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (limited(memory=MIB), "Minimum memory limit allowed is 6MB"),
        (limited(memory=64 * MIB, memory_swap=32 * MIB), "larger than memory limit"),
        (limited(memory_swap=32 * MIB), "always set the Memory limit"),
        (limited(memory=8 * MIB, memory_reservation=16 * MIB), "less than memory reservation"),
        (limited(memory_swappiness=101), "range is 0-100"),
        (limited(nano_cpus=10**15), "Range of CPUs is from 0.01"),
        (limited(nano_cpus=10**9, cpu_quota=5000), "Nano CPUs and CPU Quota"),
        (limited(cpu_period=10), "CPU cfs period"),
        (limited(cpu_quota=10), "CPU cfs quota"),
        (limited(cpuset_cpus="x"), "Invalid value x for cpuset cpus"),
        (limited(cpuset_cpus="0,4000"), "Requested CPUs are not available"),
        (limited(blkio_weight=5), "Range of blkio weight"),
        (HostOptions(shm_size=-1), "SHM size can not be less than 0"),
        (HostOptions(oom_score_adj=2000), "range for oom score adj"),
        (HostOptions(restart=RestartPolicy("always", 3)), "maximum retry count cannot be used"),
        (
            HostOptions(cap_add=("NET_ADMIN", "foo")),
            'invalid CapAdd: unknown capability: "CAP_FOO"',
        ),
        (HostOptions(cap_drop=("cap_x",)), 'invalid CapDrop: unknown capability: "CAP_X"'),
        (HostOptions(security_opt=("nonsense",)), 'invalid --security-opt 1: "nonsense"'),
        (HostOptions(security_opt=("a=b",)), 'invalid --security-opt 2: "a=b"'),
        (HostOptions(security_opt=("seccomp=/x.json",)), "decoding seccomp profile failed"),
        (HostOptions(ulimits=(Ulimit("files", 1, 1),)), "invalid ulimit type: files"),
        (HostOptions(ulimits=(Ulimit("nofile", 2, 1),)), "soft limit must be less"),
        (HostOptions(sysctls={"kernel.panic": "1"}), "not in a separate kernel namespace"),
        (HostOptions(sysctls={"net.ipv4.ip_forward": "1"}, ipc_mode="host"), ""),
        (HostOptions(sysctls={"kernel.shmmax": "1"}, ipc_mode="host"), "separate kernel namespace"),
        (HostOptions(ipc_mode="other"), "invalid IPC mode: other"),
        (HostOptions(pid_mode="container:"), "invalid PID mode"),
        (HostOptions(log=LogConfig("nonsense")), "no log driver named 'nonsense' is registered"),
        (HostOptions(log=LogConfig("none", {"max-size": "1"})), "unknown log opt 'max-size'"),
        (HostOptions(log=LogConfig(options={"max-size": "big"})), "invalid size: 'big'"),
        (HostOptions(log=LogConfig(options={"max-file": "0"})), "max-file cannot be less than 1"),
        (HostOptions(dns=("example.test",)), "bad nameserver address"),
        (HostOptions(extra_hosts=("a",)), 'bad format for add-host: "a"'),
        (HostOptions(extra_hosts=("a:b",)), 'invalid IP address in add-host: "b"'),
        (HostOptions(extra_hosts=("a:1.2.3.4", "b:host-gateway", "c:[::1]")), ""),
        (HostOptions(devices=(Device("/dev/null", "/x", "q"),)), "invalid device mode"),
        (HostOptions(runtime="kata"), "unknown or invalid runtime name: kata"),
    ],
)
def test_moby_says_what_is_wrong(host: HostOptions, words: str) -> None:
    if not words:
        checks.check(settings(host))
        return
    with pytest.raises(InvalidInput) as raised:
        checks.check(settings(host))
    assert words in raised.value.message


@pytest.mark.parametrize(
    "host",
    [
        HostOptions(cgroup_parent="/x"),
        HostOptions(userns_mode="keep-id"),
        HostOptions(log=LogConfig("syslog")),
        HostOptions(log=LogConfig("local", {"compress": "true"})),
    ],
)
def test_what_is_not_there_is_told(host: HostOptions) -> None:
    with pytest.raises(Unsupported):
        checks.check(settings(host))


def test_how_much_of_a_log_is_kept() -> None:
    assert limits_of(LogConfig()) == DEFAULT_LIMITS
    asked = LogConfig("local", {"max-size": "1.5m", "max-file": "3"})
    assert limits_of(asked) == LogLimits(3 * MIB // 2, 3)


def test_checks_of_the_container_itself() -> None:
    for wrong in (
        settings(HostOptions(restart=RestartPolicy("always")), auto_remove=True),
        settings(HostOptions(dns=("1.1.1.1",)), network_mode="container:" + "b" * 64),
        settings(ports=(PortBinding(80),), network_mode="container:" + "b" * 64),
        settings(healthcheck=Healthcheck(("CMD", "x"), interval=1)),
        settings(HostOptions(sysctls={"net.core.somaxconn": "1"}), network_mode="host"),
    ):
        with pytest.raises(InvalidInput):
            checks.check(wrong)


def test_security_options() -> None:
    assert security(()) == Security()
    assert security(("no-new-privileges", "label=disable", "label:type:x")).no_new_privileges
    assert not security(("no-new-privileges=false",)).no_new_privileges
    assert security(("seccomp=unconfined",)).seccomp == ""
    assert security(("seccomp:{}",)).seccomp == "{}"
    assert security(("seccomp=builtin",)).seccomp is None


# ---------------------------------------------------------------- the ceiling

DENIED = {
    "privileged": HostOptions(privileged=True),
    "host_namespaces": HostOptions(pid_mode="host"),
    "devices": HostOptions(devices=(Device("/dev/kmsg", "/dev/kmsg"),)),
    "bind_paths": HostOptions(mounts=(Mount("bind", "/x", source="/etc"),)),
    "capabilities": HostOptions(cap_add=("SYS_ADMIN",)),
    "seccomp_unconfined": HostOptions(security_opt=("seccomp=unconfined",)),
}


@pytest.mark.parametrize("key", DENIED)
def test_a_new_ceiling_denies_and_says_which_key(key: str) -> None:
    with pytest.raises(PolicyDenied) as raised:
        policy.check(settings(DENIED[key]), Ceiling())
    assert raised.value.context["key"] == key and key in raised.value.hint


@pytest.mark.parametrize(
    "host",
    [
        HostOptions(uts_mode="host"),
        HostOptions(ipc_mode="host"),
        HostOptions(cap_add=("ALL",)),
        HostOptions(security_opt=('seccomp={"defaultAction":"SCMP_ACT_ALLOW"}',)),
        HostOptions(devices=(Device("/dev/../etc", "/x"),)),
        HostOptions(mounts=(Mount("bind", "/x", source="/srv/../etc"),)),
        HostOptions(oom_score_adj=-500),
    ],
)
def test_no_other_spelling_gets_past_it(host: HostOptions) -> None:
    ceiling = Ceiling(bind_paths=("/srv",), devices=("/dev",))
    with pytest.raises(PolicyDenied):
        policy.check(settings(host), ceiling)
    with pytest.raises(PolicyDenied):
        policy.check(settings(network_mode="host"), ceiling)


def test_what_a_ceiling_allows() -> None:
    ceiling = Ceiling(
        bind_paths=("/srv/data",),
        privileged=True,
        host_namespaces=True,
        devices=("/dev",),
        capabilities=("ALL",),
        seccomp_unconfined=True,
    )
    for host in DENIED.values():
        if not host.mounts:
            policy.check(settings(host), ceiling)
    policy.check(
        settings(HostOptions(mounts=(Mount("bind", "/x", source="/srv/data/a"),))), ceiling
    )
    with pytest.raises(PolicyDenied):  # named volumes stay, its neighbour does not
        policy.check(
            settings(HostOptions(mounts=(Mount("bind", "/x", source="/srv/database"),))), ceiling
        )
    policy.check(settings(HostOptions(mounts=(Mount("volume", "/x", name="v"),))), Ceiling())
    policy.check(settings(HostOptions(cap_add=("net_admin",), sysctls={"net.x": "1"})), Ceiling())
    with pytest.raises(PolicyDenied):
        policy.check(settings(HostOptions(sysctls={"net.x": "1"})), Ceiling(sysctls=("kernel.*",)))
    Ceiling().check_subnet(IPv4Network("10.9.0.0/24"))
    with pytest.raises(PolicyDenied):
        Ceiling().check_subnet(IPv4Network("8.8.8.0/24"))


def test_the_file_is_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "ceiling.json"
    assert Ceiling.load(path) == Ceiling()
    path.write_text(json.dumps(Ceiling().to_json()))
    assert Ceiling.load(path) == Ceiling()
    (tmp_path / "link").symlink_to("/srv")
    path.write_text(json.dumps({"bind_paths": [str(tmp_path / "link")]}))
    assert Ceiling.load(path).bind_paths == (os.path.realpath("/srv"),)
    for wrong in (
        {"privileged": "no"},
        {"bind_paths": "/"},
        {"bind_paths": ["srv"]},
        {"publish_ports": [1]},
        {"network_subnets": ["x"]},
        {"fetch_addresses": ["localhost"]},
        {"nonsense": 1},
        [],
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(EngineError):
            Ceiling.load(path)


# ---------------------------------------------------------------- the runtime's words


def test_limits_as_the_runtime_takes_them() -> None:
    assert as_oci(Limits()) == {}
    limits = Limits(
        memory=64 * MIB, memory_swap=-1, nano_cpus=1_500_000_000, cpuset_cpus="0", pids=-1
    )
    assert as_oci(limits) == {
        "memory": {"limit": 64 * MIB, "swap": -1},
        "cpu": {"quota": 150_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": -1},
    }
    assert changes(limits, Limits(cpu_shares=7)) == {
        "memory": {"limit": -1, "swap": -1},
        "cpu": {"shares": 7, "quota": -1},
        "pids": {"limit": -1},
    }


def test_an_update_keeps_what_it_does_not_name() -> None:
    before = Limits(memory=8 * MIB, cpu_shares=3)
    assert merged(before, Limits(cpu_shares=4, pids=9)) == replace(before, cpu_shares=4, pids=9)


def test_what_a_machine_cannot_do_is_left_out_and_said() -> None:
    wanted = Limits(memory=8 * MIB, memory_swap=16 * MIB, blkio_weight=20, oom_kill_disable=True)
    assert fitting(wanted, EVERYTHING) == (wanted, ())
    lesser = replace(EVERYTHING, swap=False, blkio_weight=False, oom_kill_disable=False)
    left, warnings = fitting(wanted, lesser)
    assert left == Limits(memory=8 * MIB, memory_swap=-1)
    assert [word for text in warnings for word in ("swap", "Oom", "Block") if word in text] == [
        "swap",
        "Oom",
        "Block",
    ]


def test_ps_is_read_by_its_pids() -> None:
    text = "UID PID CMD\nroot 7 sh -c  x\nroot - -\nroot 8 y\nroot - -\n"
    assert read(text, frozenset({7})).processes == (
        ("root", "7", "sh -c x"),
        ("root", "-", "-"),
    )
    with pytest.raises(InvalidInput):
        read("UID CMD\n", frozenset())


def test_a_device_rule_is_held_against_the_ceiling() -> None:
    null, whole = Ceiling(devices=("/dev/null",)), Ceiling(devices=("/dev",))
    for text, allowed in (
        ("c 1:3 rwm", (null, whole)),
        ("c 1:5 r", (whole,)),
        ("c 1:* r", (whole,)),
        ("c 4000:1 r", (whole,)),
        ("a *:* m", (whole,)),
    ):
        ruled = settings(HostOptions(device_rules=(text,)))
        checks.check(ruled)
        for ceiling in (Ceiling(), null, whole):
            if ceiling in allowed:
                policy.check(ruled, ceiling)
            else:
                with pytest.raises(PolicyDenied) as raised:
                    policy.check(ruled, ceiling)
                assert raised.value.context["key"] == "devices"
    assert DeviceRule.parse("b 8:* rw").as_oci() == {
        "allow": True, "type": "b", "access": "rw", "major": 8
    }  # fmt: skip
    for text in ("c 1:3", "d 1:3 r", "c 1:3 rx", "c  1:3 r", "c 1:3 rwmr"):
        with pytest.raises(InvalidInput, match="invalid device cgroup rule format"):
            checks.check(settings(HostOptions(device_rules=(text,))))
