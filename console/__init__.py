"""The web console: settings, pages, websockets. It imports `engine`, never the other way."""

from console.celery import app as celery_app

__all__ = ["celery_app"]
