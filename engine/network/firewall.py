"""Getting along with a firewall that drops what is forwarded: Docker's, firewalld's, others'.

In nftables every base chain must accept a packet; where another one drops, an accept of ours does
not help. Docker calls its DOCKER-USER chain before its own drops, for rules of others: a marked
pair of accepts for all bridges of the home goes there. firewalld lets through what comes from and
goes to interfaces of its zone `trusted`, queries to the name server included. What is let through
there is still filtered by our own table. Both forget when they are reloaded: `open_way` is to be
called again and again.
"""

from __future__ import annotations

import logging
import shutil
import subprocess

from engine.network.nft import Nftables

logger = logging.getLogger(__name__)

_CHAIN = "ip filter DOCKER-USER"
_ZONE = "trusted"


def open_way(nft: Nftables, table: str, bridge_prefix: str, bridge: str) -> None:
    """Let the home's bridges through where somebody else would drop; idempotent."""
    marked = _marked(nft, table)
    if marked is not None and len(marked) < 2:
        _close_docker(nft, table)
        # the interface pattern is one that iptables can show and keep: NAME+ in its words
        nft.run(
            "".join(
                f'insert rule {_CHAIN} {side} "{bridge_prefix}*" counter accept comment "{table}"\n'
                for side in ("iifname", "oifname")
            )
        )
    if _firewalld(nft) and not _known_to_firewalld(nft, bridge):
        _firewall_cmd("--change-interface", bridge)


def close_way(nft: Nftables, table: str, bridge: str) -> None:
    """Undo for one bridge what firewalld was told; Docker's chain is for the whole home."""
    if _firewalld(nft) and _known_to_firewalld(nft, bridge):
        _firewall_cmd("--remove-interface", bridge)


def close_all(nft: Nftables, table: str) -> None:
    """Take the home's rules out of DOCKER-USER; idempotent."""
    _close_docker(nft, table)


def obstacles(nft: Nftables, table: str) -> tuple[str, ...]:
    """Chains of others that drop by default and that nothing here opens, as "family table chain".

    For a warning: with forwarding dropped neither published ports nor ways out work, with input
    dropped containers cannot ask for names.
    """
    mended = _marked(nft, table) is not None
    found = []
    for item in nft.query("list chains") or ():
        chain = item.get("chain", {})
        if chain.get("policy") != "drop" or chain.get("hook") not in ("forward", "input"):
            continue
        if chain["table"] == "firewalld" or chain["family"] not in ("ip", "inet"):
            continue
        if mended and (chain["table"], chain["hook"]) == ("filter", "forward"):
            continue
        found.append(f"{chain['family']} {chain['table']} {chain['name']}")
    return tuple(found)


def _marked(nft: Nftables, table: str) -> list[int] | None:
    """Handles of the home's rules in DOCKER-USER; None when there is no such chain."""
    rules = nft.query(f"list chain {_CHAIN}")
    if rules is None:
        return None
    return [
        item["rule"]["handle"] for item in rules if item.get("rule", {}).get("comment") == table
    ]


def _close_docker(nft: Nftables, table: str) -> None:
    for handle in _marked(nft, table) or ():
        nft.attempt(f"delete rule {_CHAIN} handle {handle}")  # Docker may flush at the same time


def _firewalld(nft: Nftables) -> bool:
    tables = nft.query("list tables inet") or ()
    running = any(item.get("table", {}).get("name") == "firewalld" for item in tables)
    return running and shutil.which("firewall-cmd") is not None


def _known_to_firewalld(nft: Nftables, bridge: str) -> bool:
    """By its rules: asking firewall-cmd takes half a second."""
    return f'"{bridge}"' in nft.run("list table inet firewalld")


def _firewall_cmd(option: str, bridge: str) -> None:
    """What goes wrong is a warning: a container that cannot go out is better than none."""
    command = ["firewall-cmd", f"--zone={_ZONE}", f"{option}={bridge}"]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except subprocess.CalledProcessError as error:
        logger.warning("firewalld refused %s for %s: %s", option, bridge, error.stderr.strip())
    except subprocess.TimeoutExpired:
        logger.warning("firewalld did not answer %s for %s", option, bridge)
