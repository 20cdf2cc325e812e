"""Django's view of the engine: the models below `engine.models`."""

from django.apps import AppConfig


class EngineAppConfig(AppConfig):
    name = "engine"
    default_auto_field = "django.db.models.BigAutoField"
