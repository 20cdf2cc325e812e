"""Rates of devices: what machines of cgroups v1, v2 and both can do, and the runtime's words."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from engine.containers import throttles
from engine.containers.options import Throttle
from engine.errors import InvalidInput, Unsupported
from engine.runtime.cgroups import Hierarchies
from engine.runtime.resources import support_of

_RATES = (
    Throttle("read_bps", "/dev/disk", 1 << 20),
    Throttle("write_bps", "/dev/disk", 2 << 20),
    Throttle("read_iops", "/dev/disk", 30),
    Throttle("write_iops", "/dev/disk", 40),
)
_WEIGHT = (Throttle("weight", "/dev/disk", 200),)


def unified(folder: Path, controllers: str) -> Path:
    folder.mkdir()
    (folder / "cgroup.controllers").write_text(f"{controllers}\n")
    return folder


def blkio(folder: Path, *files: str) -> Path:
    folder.mkdir()
    for file in files:
        (folder / file).touch()
    return folder


def test_v2_has_rates_by_its_io_controller(tmp_path: Path) -> None:
    """io.max takes all four rates; of weights it has the group's own, and none a device."""
    machine = support_of(Hierarchies(unified(tmp_path / "top", "cpuset cpu io memory pids"), {}))
    assert (machine.blkio_throttle, machine.blkio_weight) == (True, True)
    assert machine.blkio_weight_device is False
    throttles.check(_RATES, machine)
    with pytest.raises(Unsupported, match="BlkioWeightDevice"):
        throttles.check(_WEIGHT, machine)


def test_v2_beside_v1_without_io(tmp_path: Path) -> None:
    """A hybrid machine: what v1 holds counts, a v2 hierarchy without controllers adds nothing."""
    top = unified(tmp_path / "top", "")
    rates = blkio(tmp_path / "rates", "blkio.throttle.read_bps_device")
    throttles.check(_RATES, support_of(Hierarchies(top, {"blkio": rates})))
    both = blkio(tmp_path / "both", "blkio.throttle.read_bps_device", "blkio.weight_device")
    throttles.check((*_RATES, *_WEIGHT), support_of(Hierarchies(top, {"blkio": both})))
    for nothing in (
        Hierarchies(top, {}),
        Hierarchies(None, {"blkio": blkio(tmp_path / "none")}),
    ):
        with pytest.raises(Unsupported, match="BlkioDevice rates"):
            throttles.check(_RATES, support_of(nothing))


def test_the_runtime_gets_numbers_of_devices(tmp_path: Path) -> None:
    """config-linux.md, Block IO: the runtime makes `MAJ:MIN rbps=…` of io.max from it, or v1's."""
    disk, number = tmp_path / "disk", os.makedev(7, 3)
    os.mknod(disk, stat.S_IFBLK | 0o600, number)
    asked = [Throttle(one.kind, str(disk), one.value) for one in (*_RATES, *_WEIGHT)]
    device = {"major": 7, "minor": 3}
    assert throttles.as_oci([]) == {}
    assert throttles.as_oci(asked) == {
        "throttleReadBpsDevice": [{**device, "rate": 1 << 20}],
        "throttleWriteBpsDevice": [{**device, "rate": 2 << 20}],
        "throttleReadIOPSDevice": [{**device, "rate": 30}],
        "throttleWriteIOPSDevice": [{**device, "rate": 40}],
        "weightDevice": [{**device, "weight": 200}],
    }
    twice = throttles.as_oci([asked[0], Throttle("read_bps", str(disk), 5)])
    assert [one["rate"] for one in twice["throttleReadBpsDevice"]] == [1 << 20, 5]


def test_a_rate_needs_a_block_device(tmp_path: Path) -> None:
    for path, said in (
        (str(tmp_path), f"no block device of this machine: {tmp_path}"),
        ("/dev/null", "no block device of this machine: /dev/null"),
        (f"{tmp_path}/nosuch", f"stat {tmp_path}/nosuch: no such file or directory"),
        ("/dev/null/x", "stat /dev/null/x: not a directory"),
    ):
        with pytest.raises(InvalidInput, match=f"^{said}"):
            throttles.as_oci([Throttle("read_bps", path, 1)])
