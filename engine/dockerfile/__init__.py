"""Dockerfiles: parse, expand, and what of a build context counts. Pure: no I/O, no building."""

from engine.dockerfile.expansion import expand, expand_words
from engine.dockerfile.parser import Dockerfile, Finding, parse, parse_trigger
from engine.dockerfile.substitution import substitute

__all__ = [
    "Dockerfile",
    "Finding",
    "expand",
    "expand_words",
    "parse",
    "parse_trigger",
    "substitute",
]
