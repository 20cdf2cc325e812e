"""Terminal sizes that came before their program: kept until it starts."""

from __future__ import annotations

from collections import OrderedDict

from engine.api.call import Call
from engine.errors import InvalidInput

_MOST = 1000
_MOST_CELLS = 65535
_kept: OrderedDict[str, tuple[int, int]] = OrderedDict()


def asked(call: Call) -> tuple[int, int]:
    """`h` and `w` of a resize. Raises InvalidInput."""
    rows, columns = (call.number(name) for name in ("h", "w"))
    if rows is None or columns is None:
        raise InvalidInput('strconv.Atoi: parsing "": invalid syntax')
    if not (0 <= rows <= _MOST_CELLS and 0 <= columns <= _MOST_CELLS):
        raise InvalidInput(f"not a terminal's size: {columns} by {rows}")
    return rows, columns


def remember(uid: str, columns: int, rows: int) -> None:
    if columns and rows:
        _kept[uid] = (columns, rows)
        _kept.move_to_end(uid)
        if len(_kept) > _MOST:
            _kept.popitem(last=False)


def take(uid: str) -> tuple[int, int] | None:
    """(columns, rows) asked for before the start of `uid` that comes now."""
    return _kept.pop(uid, None)
