"""ORM calls from consumers and asynchronous views: `await orm(function, *args)`."""

from __future__ import annotations

from engine.streams.orm import orm

__all__ = ["orm"]
