"""config.json: validated against the runtime-spec's schema, Docker's defaults, capabilities."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from engine.errors import InvalidInput, RuntimeFailed
from engine.runtime import capabilities, seccomp
from engine.runtime.resources import Limits
from engine.runtime.spec import (
    ContainerSpec,
    Device,
    Mount,
    ProcessSpec,
    build_process,
    build_spec,
    environment,
)
from engine.runtime.users import User

SCHEMAS = Path(__file__).parents[1] / "data/runtime-spec"


def container(**changes: Any) -> ContainerSpec:
    process = changes.pop("process", ProcessSpec(args=("/bin/true",), env=("A=b",)))
    return ContainerSpec(
        process=process, rootfs=Path("/r"), cgroup="/quayside-x/c", hostname="h", **changes
    )


def validator() -> Draft4Validator:
    schemas = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    resources = [(name, DRAFT4.create_resource(schema)) for name, schema in schemas.items()]
    registry: Registry[Any] = Registry().with_resources(resources)
    assert isinstance(resources[0][1], Resource)
    return Draft4Validator(schemas["config-schema.json"], registry=registry)


@pytest.mark.parametrize(
    "spec",
    [
        container(),
        container(privileged=True, private_cgroups=True, readonly=True),
        container(limits=Limits(memory=64 << 20, nano_cpus=500_000_000, pids=20)),
        container(
            process=ProcessSpec(args=("sh",), user=User(1000, 50, (29,)), tty=True),
            mounts=(Mount("/x", "/y"), Mount("tmpfs", "/t", "tmpfs", ("size=1m",))),
            devices=(Device("/dev/x", "c", 1, 11),),
            joined={"pid": "/proc/1/fd/3", "ipc": ""},
            sysctls={"net.core.somaxconn": "9"},
            seccomp='{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}',
            annotations={"a": "b"},
            domainname="example.test",
            shm=None,
            hooks={"createRuntime": [{"path": "/bin/sh", "args": ["sh"]}]},
        ),
    ],
)
def test_spec_follows_the_schema(spec: ContainerSpec) -> None:
    check = validator()
    built = json.loads(json.dumps(build_spec(spec)))
    assert [error.message for error in check.iter_errors(built)] == []
    # The validator itself must be able to say no.
    built["linux"]["namespaces"] = [{"type": "nonsense"}]
    assert list(check.iter_errors(built))


def test_defaults_are_dockers() -> None:
    built = build_spec(container())
    assert [entry["type"] for entry in built["linux"]["namespaces"]] == [
        "pid",
        "network",
        "ipc",
        "uts",
        "mount",
    ]
    held = built["process"]["capabilities"]
    assert set(held["bounding"]) == set(capabilities.DEFAULT) & capabilities.bounding()
    assert held["inheritable"] == held["ambient"] == []
    assert "/proc/kcore" in built["linux"]["maskedPaths"]
    assert "/proc/sys" in built["linux"]["readonlyPaths"]
    options = {mount["destination"]: mount["options"] for mount in built["mounts"]}
    assert "ro" in options["/sys"] and "ro" in options["/sys/fs/cgroup"]
    assert built["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"


def test_options_of_the_namespaces_and_devices() -> None:
    built = build_spec(
        container(
            joined={"pid": "/proc/1/fd/3", "network": "", "uts": ""},
            domainname="example.test",
            devices=(Device("/dev/x", "c", 1, 11, "r"),),
            seccomp="",
        )
    )
    spaces = {one["type"]: one.get("path") for one in built["linux"]["namespaces"]}
    assert spaces == {"pid": "/proc/1/fd/3", "ipc": None, "mount": None}
    # What belongs to a namespace that is not its own is not touched.
    assert built["linux"]["sysctl"] == {} and "hostname" not in built
    assert "seccomp" not in built["linux"]
    assert built["linux"]["resources"]["devices"][-1] == {
        "allow": True,
        "type": "c",
        "major": 1,
        "minor": 11,
        "access": "r",
    }


def test_a_given_seccomp_profile_is_taken_as_it_is() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {
                "names": ["mount"],
                "action": "SCMP_ACT_ALLOW",
                "includes": {"caps": ["CAP_SYS_ADMIN"]},
            },
            {"name": "read", "action": "SCMP_ACT_ALLOW", "args": []},
        ],
    }
    found = seccomp.given_profile(json.dumps(profile), (), "x86_64")
    assert [rule["names"] for rule in found["syscalls"]] == [["read"]]
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    for wrong in ("[]", "{", '{"syscalls": []}', '{"defaultAction": "x", "syscalls": [1]}'):
        with pytest.raises(InvalidInput):
            seccomp.given_profile(wrong, (), "x86_64")


def test_another_user_has_no_effective_capabilities() -> None:
    built = build_process(ProcessSpec(args=("x",), user=User(1000, 1000)))
    assert built["capabilities"]["effective"] == built["capabilities"]["permitted"] == []
    assert built["capabilities"]["bounding"]


def test_rlimits_stay_below_our_own() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = build_process(ProcessSpec(args=("x",)))["rlimits"][0]
    assert limits["soft"] <= limits["hard"] <= (hard if hard >= 0 else 524288)


def test_mounts_of_the_caller_come_after_ours_and_parents_first() -> None:
    mounts = build_spec(container(mounts=(Mount("/b", "/a/b"), Mount("/a", "/a"))))["mounts"]
    assert [mount["destination"] for mount in mounts[-2:]] == ["/a", "/a/b"]


@pytest.mark.parametrize(
    "process",
    [
        ProcessSpec(args=()),
        ProcessSpec(args=("",)),
        ProcessSpec(args=("a\0b",)),
        ProcessSpec(args=("a",), env=("A=\0",)),
        ProcessSpec(args=("a",), cwd="relative"),
    ],
)
def test_what_no_kernel_takes_is_refused(process: ProcessSpec) -> None:
    with pytest.raises(InvalidInput):
        build_process(process)


def test_environment_order_and_overrides() -> None:
    user = User(1000, 1000, (), "/home/app")
    values = environment(("PATH=/x", "B=1", "B=2", "HOSTNAME"), user=user, tty=True, hostname="h")
    assert values == ("PATH=/x", "TERM=xterm", "B=2", "HOME=/home/app")
    assert "HOME=/mine" in environment(("HOME=/mine",), user=user)


def test_capabilities_add_and_drop() -> None:
    held = capabilities.bounding()
    assert capabilities.resolve(drop=["all"], add=["net_admin"]) == tuple(
        name for name in ("CAP_NET_ADMIN",) if name in held
    )
    assert "CAP_CHOWN" not in capabilities.resolve(drop=["CHOWN"])
    assert set(capabilities.resolve(privileged=True)) == held
    assert "CAP_NET_RAW" not in capabilities.resolve(add=["ALL"], drop=["NET_RAW"])
    with pytest.raises(InvalidInput):
        capabilities.resolve(add=["NO_SUCH"])


def test_seccomp_follows_capabilities_and_architecture() -> None:
    def allowed(profile: seccomp.LinuxSeccomp) -> set[str]:
        return {
            name
            for rule in profile["syscalls"]
            if rule["action"] == "SCMP_ACT_ALLOW"
            for name in rule["names"]
        }

    plain = seccomp.default_profile(capabilities.DEFAULT, machine="x86_64")
    assert "bpf" not in allowed(plain) and "openat" in allowed(plain)
    assert "arch_prctl" in allowed(plain)
    assert plain["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    more = seccomp.default_profile(("CAP_SYS_ADMIN",), machine="aarch64")
    assert "bpf" in allowed(more) and "arch_prctl" not in allowed(more)


def test_no_container_without_a_profile(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"syscalls": 3}')
    for name in ("missing.json", "broken.json"):
        with pytest.raises(RuntimeFailed, match=name):
            seccomp.default_profile((), path=tmp_path / name)
