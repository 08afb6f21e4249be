"""Django's registration of this app."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Where its rows live."""

    name = "apps.accounts"
    label = "accounts"
