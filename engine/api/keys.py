"""Detach keys: the sequence that leaves a terminal without ending what runs in it (moby/term)."""

from __future__ import annotations

from engine.errors import InvalidInput

DEFAULT = b"\x10\x11"  # ctrl-p,ctrl-q
_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse(text: str) -> bytes:
    """`ctrl-p,ctrl-q`, `a,b` or `ctrl-@`; "" gives the default. Raises InvalidInput."""
    if not text:
        return DEFAULT
    codes = bytearray()
    for key in text.split(","):
        control = key.lower().removeprefix("ctrl-") if key.lower().startswith("ctrl-") else ""
        if len(key) == 1 and key.isascii():
            codes.append(ord(key))
        elif len(control) == 1 and "a" <= control <= "z":
            codes.append(ord(control) - ord("a") + 1)
        elif control in _CONTROL:
            codes.append(_CONTROL[control])
        else:
            raise InvalidInput(f"Invalid detach keys ({text}) provided")
    return bytes(codes)


class Escape:
    """Looks for the sequence in what is typed. What may be its beginning is held back."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._met = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What goes on to the program, and whether the sequence is complete."""
        if not self._met and self._keys[0] not in data:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._met]:
                self._met += 1
                if self._met == len(self._keys):
                    return bytes(passed), True
                continue
            passed += self._keys[: self._met]
            self._met = 0
            if byte == self._keys[0]:
                self._met = 1
            else:
                passed.append(byte)
        return bytes(passed), False
