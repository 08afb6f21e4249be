"""The `helmctl` command line."""
