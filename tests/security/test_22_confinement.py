"""Case 22: Docker's capabilities, seccomp, masked paths, read-only /sys, namespaces of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.containers.exec import ExecRequest, Execs
from engine.containers.options import HostOptions
from engine.runtime import capabilities
from engine.runtime.spec import ProcessSpec, environment
from engine.runtime.steps import Step, run_step
from engine.runtime.users import User
from tests.machine import Machine

Run = Callable[[str], bytes]


@pytest.fixture(params=["container", "exec", "step"])
def run(request: pytest.FixtureRequest, machine: Machine) -> Run:
    """Runs a script in each way a program gets to run here; its output."""

    def container(script: str) -> bytes:
        id = machine.create(f"({script}) 2>&1")
        machine.start(id)
        machine.finish(id)
        return machine.log(machine.directory(id).log)

    def exec_(script: str) -> bytes:
        id = machine.create("sleep 83")
        machine.start(id)
        made = Execs(machine.config, machine.runtime).start(
            id, ExecRequest(("/bin/sh", "-c", f"({script}) 2>&1"))
        )
        supervisor = made.supervisor()
        assert supervisor is None or supervisor.wait(10)
        output = machine.log(made.log)
        machine.containers.stop(id, 1, 9, 0)
        return output

    def step(script: str) -> bytes:
        _, root = machine.scratch()
        output = b""

        def take(stream: str, data: bytes) -> None:
            nonlocal output
            output += data

        process = ProcessSpec(
            args=("/bin/sh", "-c", f"({script}) 2>&1"), env=environment((), user=User())
        )
        run_step(machine.runtime, Step("confined", root, process), take)
        return output

    chosen: Run = {"container": container, "exec": exec_, "step": step}[request.param]
    return chosen


def test_capabilities_and_seccomp(run: Run) -> None:
    status = dict(line.split(":\t") for line in run("cat /proc/self/status").decode().splitlines())
    held = set(capabilities.DEFAULT) & capabilities.bounding()
    mask = sum(1 << capabilities.ALL.index(name) for name in held)
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == mask
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "0"


def test_namespaces_are_its_own(run: Run) -> None:
    kinds = ("pid", "mnt", "ipc", "uts", "net")
    output = run("; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds))
    inside = output.decode().split()
    assert len(inside) == len(kinds)
    for kind, found in zip(kinds, inside, strict=True):
        assert found.startswith(f"{kind}:") and found != str(
            Path(f"/proc/self/ns/{kind}").readlink()
        )


def test_what_is_masked_or_read_only(run: Run) -> None:
    output = run(
        "wc -c < /proc/keys; wc -c < /proc/timer_list; ls /proc/acpi /sys/firmware | grep -vc :;"
        "for f in /proc/sys/kernel/hostname /sys/kernel/x; do echo x > $f; done;"
        "d=/sys/fs/cgroup; test -d $d/memory && d=$d/memory; mkdir $d/x; echo end"
    ).decode()
    assert output.splitlines()[:2] == ["0", "0"]
    assert output.count("Read-only file system") == 3, output
    assert output.endswith("end\n")


def test_what_seccomp_and_capabilities_refuse(run: Run) -> None:
    output = run(
        "mount -t tmpfs none /tmp && echo BROKEN; unshare -m true && echo BROKEN;"
        "unshare -U true && echo BROKEN; chroot / sleep 0 || echo BROKEN;"
        "mknod /tmp/disk b 254 0 && dd if=/tmp/disk of=/dev/null count=1 && echo BROKEN;"
        "hostname other && echo BROKEN; echo 1 > /proc/sys/vm/drop_caches && echo BROKEN; echo end"
    ).decode()
    assert "BROKEN" not in output and output.endswith("end\n"), output


def test_no_new_privileges_is_an_option(machine: Machine) -> None:
    id = machine.create(
        "grep NoNewPrivs /proc/self/status", host=HostOptions(security_opt=("no-new-privileges",))
    )
    machine.start(id)
    machine.finish(id)
    assert machine.log(machine.directory(id).log).split()[1] == b"1"


def test_another_user_has_no_capabilities(machine: Machine) -> None:
    id = machine.create("grep -E 'Cap(Eff|Prm)' /proc/self/status", user="app")
    machine.start(id)
    machine.finish(id)
    values = machine.log(machine.directory(id).log).split()[1::2]
    assert [int(value, 16) for value in values] == [0, 0]


def test_no_descriptor_of_ours_is_left_open(run: Run) -> None:
    output = run("for f in /proc/1/fd/* /proc/self/fd/*; do readlink $f; done").decode()
    targets = [target for target in output.splitlines() if target]
    assert targets
    for target in targets:
        assert target.startswith(("pipe:", "/dev/null", "/proc/")) and "/fd/pipe" not in target
