"""The kernel's list of routes says what netlink does; web needs no netlink library for it."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import IPv4Network

from pyroute2 import IPRoute

from engine.network.routes import host_subnets


def test_it_says_what_netlink_says() -> None:
    with IPRoute() as ip:
        wanted = sorted(
            IPv4Network((route.get_attr("RTA_DST"), route["dst_len"]))
            for route in ip.get_routes(family=2, table=254)
            if route.get_attr("RTA_DST")
        )
    assert wanted
    assert sorted(host_subnets()) == wanted


def test_web_does_without_netlink() -> None:
    program = (
        "import os, sys, django\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'console.settings'\n"
        "django.setup()\n"
        "import console.asgi, console.urls\n"
        "print('pyroute2' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
