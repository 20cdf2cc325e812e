from django.apps import AppConfig


class ConsoleAppConfig(AppConfig):
    name = "console"
    default_auto_field = "django.db.models.BigAutoField"
