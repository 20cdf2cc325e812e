"""How fast a container may read and write a device of the host's: `--device-read-bps` and kin.

Nothing of the device is given by it, so the ceiling has no word in it; what is told of a path is
only whether a block device is there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.containers.options import Throttle
from engine.errors import InvalidInput, Unsupported
from engine.runtime.resources import Support, support

# As config-linux.md calls them (Block IO); the runtime writes them as v1 or v2 wants them.
_OCI = {
    "read_bps": "throttleReadBpsDevice",
    "write_bps": "throttleWriteBpsDevice",
    "read_iops": "throttleReadIOPSDevice",
    "write_iops": "throttleWriteIOPSDevice",
    "weight": "weightDevice",
}
_MOST = 2**63 - 1


def check(throttles: Sequence[Throttle], machine: Support | None = None) -> None:
    """Raises InvalidInput for a value out of range, Unsupported for what this machine's cgroups
    cannot do. What device it is shows at the start, as with Docker."""
    can = machine or support()
    for one in throttles:
        if one.kind == "weight":
            if not 10 <= one.value <= 1000:
                raise InvalidInput(
                    f"Range of blkio weight is from 10 to 1000: {one.path}:{one.value}",
                    field="blkio_weight",
                )
            if not can.blkio_weight_device:
                raise Unsupported(
                    "BlkioWeightDevice is not supported by this machine's kernel",
                    hint="leave --blkio-weight-device out, or throttle with --device-read-bps",
                )
        elif not 0 <= one.value <= _MOST:
            raise InvalidInput(
                f"invalid rate for device: {one.path}:{one.value}", field="throttles"
            )
        elif not can.blkio_throttle:
            raise Unsupported(
                "BlkioDevice rates are not supported by this machine's kernel",
                hint="leave the rates out",
            )


def as_oci(throttles: Sequence[Throttle]) -> dict[str, Any]:
    """`resources.blockIO`, in part; {} for none. Raises InvalidInput for what is no block device of
    this machine."""
    found: dict[str, Any] = {}
    for one in throttles:
        try:
            status = Path(one.path).stat()
        except OSError as error:
            raise InvalidInput(
                f"stat {one.path}: {(error.strerror or 'no such device').lower()}",
                field="throttles",
                path=one.path,
            ) from error
        if not stat.S_ISBLK(status.st_mode):
            raise InvalidInput(
                f"no block device of this machine: {one.path}",
                hint="name one as lsblk -p shows it",
                field="throttles",
                path=one.path,
            )
        found.setdefault(_OCI[one.kind], []).append(
            {
                "major": os.major(status.st_rdev),
                "minor": os.minor(status.st_rdev),
                "weight" if one.kind == "weight" else "rate": one.value,
            }
        )
    return found
