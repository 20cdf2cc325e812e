"""hosts, resolv.conf and hostname of a container: written by us, bind mounted over the image's.

The image's own files stay as they are, so nothing of one run gets into a commit. What the
resolver's file says is the network's business (engine.network.names).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.network.names import resolv_conf
from engine.network.spec import Attachment
from engine.runtime.spec import Mount

_HOST_RESOLV_CONF = Path("/etc/resolv.conf")
_HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def write_etc(folder: Path, hostname: str, attachments: Sequence[Attachment]) -> tuple[Mount, ...]:
    """Write the three files into `folder` and give the mounts for them. Idempotent.

    Written in place: a container that runs sees the change through its mount.
    """
    try:
        host = _HOST_RESOLV_CONF.read_text()
    except FileNotFoundError:
        host = ""
    texts = {
        "hostname": f"{hostname}\n",
        "hosts": hosts(hostname, attachments),
        "resolv.conf": resolv_conf([one.network for one in attachments], host),
    }
    folder.mkdir(exist_ok=True, mode=0o755)
    mounts = []
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
        mounts.append(Mount(str(folder / name), f"/etc/{name}"))
    return tuple(mounts)


def hosts(hostname: str, attachments: Sequence[Attachment]) -> str:
    """Docker's text; without a network the own name means the loopback."""
    addresses = [str(one.address) for one in attachments] or ["127.0.1.1"]
    return _HOSTS + "".join(f"{address}\t{hostname}\n" for address in addresses)
