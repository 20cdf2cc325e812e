"""Names of signals as STOPSIGNAL and `docker kill -s` write them."""

from __future__ import annotations

import re
import signal

from engine.errors import InvalidInput

_REALTIME = re.compile(r"RT(MIN|MAX)([+-][0-9]{1,2})?")


def signal_number(text: str) -> int:
    """`SIGTERM`, `term`, `15`, `RTMIN+3` -> the number. Raises InvalidInput."""
    name = text.strip().upper().removeprefix("SIG")
    if name.isascii() and name.isdigit() and 0 < int(name) <= signal.SIGRTMAX:
        return int(name)
    if found := _REALTIME.fullmatch(name):
        base = signal.SIGRTMIN if found[1] == "MIN" else signal.SIGRTMAX
        number = base + int(found[2] or 0)
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    elif not name.startswith("RT"):
        try:
            return signal.Signals[f"SIG{name}"].value
        except KeyError:
            pass
    raise InvalidInput(
        f"no such signal: {text}", hint="write it like SIGTERM or 15", field="signal"
    )
