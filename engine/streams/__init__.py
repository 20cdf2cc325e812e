"""Byte streams between engined and web: container logs, build logs, terminals.

`serve` (server.py) runs inside engined; web speaks to it through `client.py`. Every byte of
output comes from a log file by its offset, so a stream can be left and taken up anywhere.
"""
