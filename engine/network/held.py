"""A network namespace of ours, held open by a thread that lives in it.

The RUN steps of one build share it: it is plumbed once, where a namespace for each step would be
made, plumbed and taken down ten times (15 ms each). It goes with `close`, or with this process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from pathlib import Path

from pyroute2 import IPRoute

from engine.errors import NetworkFailed

_CLONE_NEWNET = 0x40000000
_LOOPBACK = 1
# As Docker gives every network namespace of a container: no privilege for ports and ping.
_SYSCTLS = {
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ping_group_range": "0 2147483647",
}
_libc = ctypes.CDLL(None, use_errno=True)


class HeldNamespace:
    """With its loopback up and nothing else. Raises NetworkFailed."""

    def __init__(self) -> None:
        self.pid = 0
        """Of the thread: what NetworkManager.attach takes for a process in the namespace."""
        self._failed: OSError | None = None
        self._made = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._hold, name="namespace", daemon=True)
        self._thread.start()
        self._made.wait()
        if self._failed is not None:
            raise NetworkFailed(
                f"cannot make a network namespace: {self._failed}",
                hint="it needs root with CAP_SYS_ADMIN",
            ) from self._failed

    @property
    def path(self) -> str:
        """The file a runtime joins it by."""
        return f"/proc/{self.pid}/ns/net"

    def close(self) -> None:
        """Idempotent. What still runs in it keeps it."""
        self._over.set()
        self._thread.join()

    def _hold(self) -> None:
        try:
            if _libc.unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            for name, value in _SYSCTLS.items():
                try:
                    Path("/proc/sys", name).write_text(value)
                except OSError as error:
                    if error.errno != errno.ENOENT:  # an older kernel's
                        raise
            with IPRoute() as ip:
                ip.link("set", index=_LOOPBACK, state="up")
            self.pid = threading.get_native_id()
        except OSError as error:
            self._failed = error
        finally:
            self._made.set()
        if self._failed is None:
            self._over.wait()
