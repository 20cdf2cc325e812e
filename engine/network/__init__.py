"""Bridges, addresses, published ports and names of containers.

`manager.NetworkManager` is what others call; `spec` has the values it takes, `addresses` the pure
choice of subnets and addresses. Rows, ownership and who may publish what are left to services;
the container's network namespace is made by the runtime, its /etc/hosts and /etc/resolv.conf are
written by engine.containers (`names.resolv_conf` gives the text of the latter).
"""
