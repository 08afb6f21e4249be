"""The Django project and the `helmctl` command."""
