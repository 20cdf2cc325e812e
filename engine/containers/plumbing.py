"""The network of one start, made beside the rest of it, and what a container needs of networks.

The namespace is ours: it is made and plumbed while the root file system is mounted and the runtime
makes the container, which joins it. One of the runtime's own could be plumbed only after that
(12 ms of a start). It goes with the container's last process, or with ours when the start fails.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import Protocol

from engine.network.held import HeldNamespace
from engine.network.ports import Reservation
from engine.network.spec import Attachment, PortBinding, PublishedPort


class Network(Protocol):
    """What a container needs of engine.network.manager.NetworkManager."""

    def reserve(self, bindings: Sequence[PortBinding]) -> Reservation: ...
    def attach(self, attachment: Attachment, container_id: str, pid: int) -> None: ...
    def publish(
        self, container_id: str, address: IPv4Address, published: Sequence[PublishedPort]
    ) -> None: ...
    def release(self, container_id: str) -> None: ...


class Beside:
    """`work` in a thread of its own; `wait` gives back what it raised."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._raised: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="beside", daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def wait(self) -> None:
        self.join()
        if self._raised is not None:
            raise self._raised

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - handed to who waits
            self._raised = error


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[Beside]:
    """`work` goes on beside the block, and has ended when the block has. Raises what it raised,
    unless the block raises."""
    doing = Beside(work)
    try:
        yield doing
    except BaseException:
        doing.join()
        raise
    doing.wait()


class Plumbing:
    """A namespace that is being made, with interfaces that are being put into it."""

    def __init__(self, network: Network, id: str, attachments: Sequence[Attachment]) -> None:
        self._network, self._id, self._attachments = network, id, attachments
        self._namespace: HeldNamespace | None = None
        self._made = threading.Event()
        self._plumbing = Beside(self._plumb)

    def path(self) -> str:
        """The file a runtime joins the namespace by. Raises NetworkFailed."""
        self._made.wait()
        if self._namespace is None:
            self._plumbing.wait()
        assert self._namespace is not None
        return self._namespace.path

    def wait(self) -> None:
        """Until every interface is there. Raises what NetworkManager.attach raises."""
        self._plumbing.wait()

    def close(self) -> None:
        """Nothing of it is being made any more. Idempotent."""
        self._plumbing.join()
        if self._namespace is not None:
            self._namespace.close()

    def _plumb(self) -> None:
        try:
            self._namespace = HeldNamespace()
        finally:
            self._made.set()
        for attachment in self._attachments:
            self._network.attach(attachment, self._id, self._namespace.pid)
