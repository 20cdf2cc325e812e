"""Fixtures of the tests that use this machine."""

from tests.machine import machine, one_machine

__all__ = ["machine", "one_machine"]
