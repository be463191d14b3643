"""The Django application."""

from django.apps import AppConfig


class ProdsysConfig(AppConfig):
    name = "prodsys_core"
    label = "prodsys"
    verbose_name = "Production system"
    default_auto_field = "django.db.models.BigAutoField"
