"""RUN steps on the real runtime: output, exit codes, cancel, network hook, nothing left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.errors import Cancelled, Conflict, RuntimeFailed
from engine.network.held import HeldNamespace
from engine.runtime import cgroups, processes
from engine.runtime.oci_runtime import OCIRuntime
from engine.runtime.spec import Mount, ProcessSpec, environment
from engine.runtime.steps import Cancellation, Step, reap_steps, run_step
from engine.runtime.users import User, resolve_user
from tests.rootfs import make_rootfs


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rootfs(tmp_path_factory.mktemp("rootfs"))


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[OCIRuntime]:
    config = EngineConfig(home=tmp_path)
    made = OCIRuntime(config.run_dir / "runc", config.cgroup_parent)
    yield made
    reap_steps(made)
    left = cgroups.children(f"/{config.cgroup_parent}")
    cgroups.kill(f"/{config.cgroup_parent}")
    cgroups.wait_empty(f"/{config.cgroup_parent}", 5)
    cgroups.remove_tree(f"/{config.cgroup_parent}")
    assert left == frozenset() and made.list() == frozenset()


class Output:
    def __init__(self) -> None:
        self.streams = {"stdout": b"", "stderr": b""}

    def __call__(self, stream: str, data: bytes) -> None:
        self.streams[stream] += data


def shell(rootfs: Path, script: str, id: str = "one", user: str = "", **changes: object) -> Step:
    who = resolve_user(user, rootfs)
    process = ProcessSpec(args=("/bin/sh", "-c", script), env=environment((), user=who), user=who)
    return Step(id=id, rootfs=rootfs, process=process, **changes)  # type: ignore[arg-type]


def test_output_and_exit_code(runtime: OCIRuntime, rootfs: Path) -> None:
    output = Output()
    code = run_step(runtime, shell(rootfs, "echo out; echo err >&2; cat; exit 7"), output)
    assert code == 7
    assert output.streams == {"stdout": b"out\n", "stderr": b"err\n"}


def test_signals_and_commands_that_are_not_there(runtime: OCIRuntime, rootfs: Path) -> None:
    output = Output()
    assert run_step(runtime, shell(rootfs, "sh -c 'kill -15 $$'; exit $?"), output) == 143
    for path, code in (("/no/such", 127), ("nosuch", 127), ("/etc/passwd", 126)):
        step = Step(id="one", rootfs=rootfs, process=ProcessSpec(args=(path,)))
        assert run_step(runtime, step, output) == code
        assert path.encode() in output.streams["stderr"]


def test_a_runtime_that_fails_says_so(runtime: OCIRuntime, rootfs: Path) -> None:
    step = shell(rootfs, "true", mounts=(Mount("/no/such/source", "/x"),))
    with pytest.raises(RuntimeFailed, match="no/such/source"):
        run_step(runtime, step, Output())


def test_large_output_is_whole(runtime: OCIRuntime, rootfs: Path) -> None:
    output = Output()
    run_step(runtime, shell(rootfs, "seq 1 200000; seq 1 50000 >&2"), output)
    assert output.streams["stdout"].split() == [b"%d" % n for n in range(1, 200001)]
    assert output.streams["stderr"].split() == [b"%d" % n for n in range(1, 50001)]


def test_output_comes_as_it_is_written(runtime: OCIRuntime, rootfs: Path) -> None:
    (rootfs / "tmp/go").unlink(missing_ok=True)
    os.mkfifo(rootfs / "tmp/go")

    def output(stream: str, data: bytes) -> None:
        # The step goes on only once its first line has arrived here.
        if b"first" in data:
            (rootfs / "tmp/go").write_text("on\n")

    assert run_step(runtime, shell(rootfs, "echo first; read word </tmp/go; exit 3"), output) == 3
    (rootfs / "tmp/go").unlink()


def test_cancel_from_another_thread(runtime: OCIRuntime, rootfs: Path) -> None:
    cancel = Cancellation()

    def output(stream: str, data: bytes) -> None:
        threading.Thread(target=cancel.cancel).start()

    started = time.monotonic()
    with pytest.raises(Cancelled):
        run_step(
            runtime,
            shell(rootfs, "trap '' TERM; sleep 97 & echo up; sleep 98"),
            output,
            cancel=cancel,
        )
    assert time.monotonic() - started < 5
    assert not processes.find("sleep", "97") and not processes.find("sleep", "98")
    with pytest.raises(Cancelled):
        run_step(runtime, shell(rootfs, "true"), Output(), cancel=cancel)


def test_cancel_at_any_moment_leaves_nothing(runtime: OCIRuntime, rootfs: Path) -> None:
    for delay in range(0, 40, 4):
        cancel = Cancellation()
        timer = threading.Timer(delay / 1000, cancel.cancel)
        timer.start()
        with pytest.raises(Cancelled):
            run_step(runtime, shell(rootfs, "sleep 96"), Output(), cancel=cancel)
        timer.join()
        assert runtime.list() == frozenset()
        assert cgroups.children(f"/{runtime.cgroup_parent}") == frozenset()
    assert not processes.find("sleep", "96")


def test_an_error_in_a_callback_ends_the_step(runtime: OCIRuntime, rootfs: Path) -> None:
    def broken(stream: str, data: bytes) -> None:
        raise ValueError("full")

    with pytest.raises(ValueError, match="full"):
        run_step(runtime, shell(rootfs, "echo x; sleep 95"), broken)


def test_a_step_joins_a_network_namespace_of_ours(runtime: OCIRuntime, rootfs: Path) -> None:
    held = HeldNamespace()
    try:
        inside = ["nsenter", f"--net={held.path}", "ip", "link", "add", "q0", "type", "bridge"]
        subprocess.run(inside, check=True)
        for _ in range(2):
            output = Output()
            step = shell(rootfs, "ip -o link; ping -c1 127.0.0.1", network=held.path)
            assert run_step(runtime, step, output) == 0
            assert b"q0" in output.streams["stdout"] and b"lo" in output.streams["stdout"]
            assert b"1 packets received" in output.streams["stdout"]
        assert Path(held.path).readlink() != Path("/proc/self/ns/net").readlink()
    finally:
        held.close()


def test_without_a_network_only_loopback(runtime: OCIRuntime, rootfs: Path) -> None:
    output = Output()
    assert run_step(runtime, shell(rootfs, "ip -o link; ping -c1 127.0.0.1"), output) == 0
    lines = [line for line in output.streams["stdout"].splitlines() if b"link/" in line]
    assert len(lines) == 1 and b"LOOPBACK,UP" in lines[0]


def test_mount_points_leave_no_trace(runtime: OCIRuntime, tmp_path: Path) -> None:
    root = make_rootfs(tmp_path / "root")
    for name in ("proc", "sys", "dev"):
        (root / name).rmdir()
    (root / "etc/hosts").symlink_to("../run/hosts")
    (tmp_path / "file").write_text("x\n")
    before = {
        str(path.relative_to(root)): path.lstat().st_mtime_ns for path in [root, *root.rglob("*")]
    }
    step = shell(
        root,
        "cat /etc/resolv.conf /etc/hosts; ls /cache/deep",
        mounts=tuple(
            Mount(str(source), destination)
            for source, destination in (
                (tmp_path / "file", "/etc/resolv.conf"),
                (tmp_path / "file", "/etc/hosts"),
                (tmp_path, "/cache/deep"),
            )
        ),
    )
    output = Output()
    assert run_step(runtime, step, output) == 0
    assert output.streams["stdout"].startswith(b"x\nx\n")
    after = {
        str(path.relative_to(root)): path.lstat().st_mtime_ns for path in [root, *root.rglob("*")]
    }
    assert after == before


def test_user_and_environment(runtime: OCIRuntime, rootfs: Path) -> None:
    output = Output()
    step = shell(
        rootfs, 'id -u; id -g; id -G; echo "$HOME"; grep Seccomp: /proc/1/status', user="app"
    )
    assert run_step(runtime, step, output) == 0
    lines = output.streams["stdout"].decode().splitlines()
    assert lines[:2] == ["1000", "1000"] and set(lines[2].split()) == {"1000", "29", "50"}
    assert lines[3] == "/home/app" and lines[4].split()[1] == "2"
    # Its own group is among the others too, as in moby (CVE-2022-36109).
    assert User(1000, 1000, (29, 50, 1000), "/home/app") == step.process.user


def test_one_step_of_an_id_at_a_time(runtime: OCIRuntime, rootfs: Path) -> None:
    def output(stream: str, data: bytes) -> None:
        with pytest.raises(Conflict):
            run_step(runtime, shell(rootfs, "true"), Output())
        assert reap_steps(runtime) == []

    assert run_step(runtime, shell(rootfs, "echo x"), output) == 0


_KILLED = """
import sys
from pathlib import Path
from engine.runtime.oci_runtime import OCIRuntime
from engine.runtime.spec import ProcessSpec
from engine.runtime.steps import Step, run_step
runtime = OCIRuntime(Path(sys.argv[1]), sys.argv[2])
step = Step("killed", Path(sys.argv[3]), ProcessSpec(args=("/bin/sh", "-c", "echo up; sleep 94")))
run_step(runtime, step, lambda stream, data: print(data, flush=True))
"""


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.04, None])
def test_a_killed_caller_leaves_what_reap_takes_away(
    runtime: OCIRuntime, rootfs: Path, delay: float | None
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, runtime.root, runtime.cgroup_parent, rootfs],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as caller:
        assert caller.stdout is not None
        if delay is None:
            assert caller.stdout.readline() == b"b'up\\n'\n"
        else:
            # Killed while the runtime is busy creating: wait for its first trace, then a moment.
            while not (runtime.root.parent / "steps/step-killed/config.json").exists():
                time.sleep(0.001)
            time.sleep(delay)
        caller.send_signal(signal.SIGKILL)
    assert reap_steps(runtime) == ["killed"]
    assert not processes.find("sleep", "94")
    assert reap_steps(runtime) == []
