"""ORM calls from consumers and asynchronous views: `await orm(function, *args)`."""

from __future__ import annotations

from engine.services.orm import orm

__all__ = ["orm"]
