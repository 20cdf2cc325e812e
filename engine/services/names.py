"""Names for containers nobody named: an adjective and something found at a quay."""

from __future__ import annotations

import secrets
from collections.abc import Container

_ADJECTIVES = """
    able amber brave brisk bright calm clear clever coral crisp deft eager early fair fleet
    gentle glad golden green hale happy hardy honest jolly keen kind light lively lucky mellow
    merry mild misty neat nimble noble open patient plain polite proud quick quiet ready rosy
    salty sandy serene sharp silver simple sleek snug solid sound spry steady still sunny sure
    swift tidal tidy true warm wise young zesty
""".split()
_NOUNS = """
    anchor barge barnacle beacon berth bollard bow breeze brig buoy cable canal capstan cargo
    catamaran channel clipper cormorant crab crane current cutter davit deck dinghy dock
    dolphin ferry fender galley gannet gull halyard harbour heron hull jetty keel ketch lagoon
    lantern lighthouse lugger mast mooring narwhal otter pelican petrel pier pilot plover
    porpoise puffin quay raft reef rigging rudder sail schooner seal skiff skipper sloop spar
    spray stern tern tide tiller trawler tug wake wharf winch
""".split()


def random_name(taken: Container[str]) -> str:
    """`brisk_heron`; with a number behind it once all the plain ones seem taken."""
    for attempt in range(200):
        name = f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_NOUNS)}"
        if attempt >= 20:
            name += str(secrets.randbelow(10_000))
        if name not in taken:
            return name
    return f"container_{secrets.token_hex(6)}"
