"""People and the API tokens they made."""

from django.contrib.auth.models import AbstractUser
from django.db import models

from apps.lib.permissions import Role


class User(AbstractUser):
    """A person with one role in the fleet; an empty role may sign in and sees nothing."""

    role = models.CharField(max_length=16, blank=True, choices=[(role.value, role.value) for role in Role])


class ApiToken(models.Model):
    """A machine's way in, acting as its owner. The secret is shown once; only its SHA-256 is here."""

    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=64)
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
