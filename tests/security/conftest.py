"""Fixtures of the tests that use this machine."""

from tests.machine import machine

__all__ = ["machine"]
