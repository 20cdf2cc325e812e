"""hosts, resolv.conf and hostname of a container: written by us, bind mounted over the image's.

The image's own files stay as they are, so nothing of one run gets into a commit. What the
resolver's file says is the network's business (engine.network.names); what a request asks of it
is put over that here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.containers.options import HostOptions
from engine.errors import InvalidInput
from engine.network.names import resolv_conf
from engine.network.spec import Attachment, asked_servers
from engine.runtime.spec import Mount

_HOST_RESOLV_CONF = Path("/etc/resolv.conf")
_HOST_HOSTS = Path("/etc/hosts")
_FILES = ("hostname", "hosts", "resolv.conf")
_NOTHING = HostOptions()
_HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def write_etc(
    folder: Path,
    hostname: str,
    attachments: Sequence[Attachment],
    host: HostOptions = _NOTHING,
    *,
    domainname: str = "",
    host_network: bool = False,
) -> tuple[Mount, ...]:
    """Write the three files into `folder` and give the mounts for them. Idempotent.

    Written in place: a container that runs sees the change through its mount. On the host's
    network (`host_network`) the files are the host's. Raises InvalidInput for a host-gateway
    where there is no gateway.
    """
    resolver = _read(_HOST_RESOLV_CONF)
    if not host_network:
        resolver = resolv_conf([one.network for one in attachments], resolver)
    name = f"{hostname}.{domainname}\t{hostname}" if domainname else hostname
    own = _read(_HOST_HOSTS) if host_network else _HOSTS
    texts = {
        "hostname": f"{f'{hostname}.{domainname}' if domainname else hostname}\n",
        "hosts": own
        + _extra_hosts(host.extra_hosts, attachments)
        + ("" if host_network else _own_lines(name, attachments)),
        # With a network its gateway is asked, which knows the names there and asks those servers.
        "resolv.conf": asked_for(
            resolver,
            replace(host, dns=()) if attachments and asked_servers(host.dns) else host,
        ),
    }
    folder.mkdir(exist_ok=True, mode=0o755)
    for file, text in texts.items():
        (folder / file).write_text(text)
        (folder / file).chmod(0o644)
    return mounts_of(folder, read_only=host.read_only)


def mounts_of(folder: Path, *, read_only: bool) -> tuple[Mount, ...]:
    """The mounts of the files in `folder`, the container's own or another's."""
    more = ("ro",) if read_only else ()
    return tuple(
        Mount(str(folder / name), f"/etc/{name}", options=("rbind", "rprivate", *more))
        for name in _FILES
    )


def asked_for(text: str, host: HostOptions) -> str:
    """resolv.conf `text` with what `--dns`, `--dns-search` and `--dns-option` put in its place
    (libnetwork rebuildDNS); a search of "." takes the host's away. Pure."""
    if not (host.dns or host.dns_search or host.dns_options):
        return text
    kept = [line.split() for line in text.splitlines() if line.split()]
    lines = []
    if host.dns:
        lines += [f"nameserver {address}" for address in host.dns]
    else:
        lines += [" ".join(words) for words in kept if words[0] == "nameserver"]
    if host.dns_search:
        domains = [domain for domain in host.dns_search if domain != "."]
        lines += [f"search {' '.join(domains)}"] if domains else []
    else:
        lines += [" ".join(words) for words in kept if words[0] in ("search", "domain")]
    if host.dns_options:
        lines.append(f"options {' '.join(host.dns_options)}")
    else:
        lines += [" ".join(words) for words in kept if words[0] == "options"]
    return "".join(f"{line}\n" for line in lines)


def _extra_hosts(entries: Sequence[str], attachments: Sequence[Attachment]) -> str:
    lines = []
    for entry in entries:
        name, _, address = entry.partition(":")
        if address == "host-gateway":
            if not attachments:
                raise InvalidInput(
                    "unable to derive the IP value for host-gateway",
                    hint="put the container on a network",
                    field="extra_hosts",
                )
            address = str(attachments[0].network.gateway)
        lines.append(f"{address.strip('[]')}\t{name}\n")
    return "".join(lines)


def _own_lines(name: str, attachments: Sequence[Attachment]) -> str:
    """Docker's text; without a network the file does not have the own name."""
    return "".join(f"{one.address}\t{name}\n" for one in attachments)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
