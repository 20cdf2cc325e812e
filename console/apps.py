from django.apps import AppConfig
from django.contrib.staticfiles.apps import StaticFilesConfig


class ConsoleAppConfig(AppConfig):
    name = "console"
    default_auto_field = "django.db.models.BigAutoField"


class StaticConfig(StaticFilesConfig):
    """htmx's extensions stay out: none is used, and one names a file that is not there."""

    ignore_patterns = [*StaticFilesConfig.ignore_patterns, "hx-*.js"]
