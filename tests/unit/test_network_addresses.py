from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Conflict
from engine.network.addresses import mac_for, next_address, next_subnet

POOL = IPv4Network("10.64.0.0/20")


def test_first_subnet_is_the_pools_first() -> None:
    assert next_subnet(POOL, ()) == IPv4Network("10.64.0.0/24")


def test_a_gap_is_filled() -> None:
    taken = [IPv4Network("10.64.0.0/24"), IPv4Network("10.64.2.0/24")]
    assert next_subnet(POOL, taken) == IPv4Network("10.64.1.0/24")


def test_routes_of_other_sizes_are_kept_clear() -> None:
    taken = [IPv4Network("10.64.0.0/22"), IPv4Network("10.64.4.128/30"), IPv4Network("0.0.0.0/32")]
    assert next_subnet(POOL, taken) == IPv4Network("10.64.5.0/24")


@pytest.mark.parametrize(
    "taken", [[IPv4Network("10.0.0.0/8")], list(POOL.subnets(new_prefix=24)), [POOL]]
)
def test_a_full_pool_is_a_conflict_that_names_it(taken: list[IPv4Network]) -> None:
    with pytest.raises(Conflict, match=r"10\.64\.0\.0/20"):
        next_subnet(POOL, taken)


@given(
    st.lists(
        st.builds(
            lambda offset, prefix: IPv4Network((0x0A400000 + offset, prefix), strict=False),
            st.integers(0, 0x0FFF),
            st.integers(21, 32),
        )
    )
)
def test_a_subnet_never_overlaps_and_is_the_lowest(taken: list[IPv4Network]) -> None:
    free = [s for s in POOL.subnets(new_prefix=24) if not any(s.overlaps(t) for t in taken)]
    if free:
        assert next_subnet(POOL, taken) == free[0]
    else:
        with pytest.raises(Conflict):
            next_subnet(POOL, taken)


def test_addresses_go_up_from_the_gateway_and_are_used_again() -> None:
    subnet = IPv4Network("10.64.0.0/29")
    taken: set[IPv4Address] = set()
    for _ in range(5):
        taken.add(next_address(subnet, taken))
    assert sorted(map(str, taken)) == [f"10.64.0.{n}" for n in range(2, 7)]
    with pytest.raises(Conflict, match="no free address"):
        next_address(subnet, taken)
    taken.remove(IPv4Address("10.64.0.4"))
    assert next_address(subnet, taken) == IPv4Address("10.64.0.4")


def test_mac_is_local_unicast_and_follows_the_address() -> None:
    assert mac_for(IPv4Address("10.64.0.254")) == "02:42:0a:40:00:fe"
