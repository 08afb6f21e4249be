"""Embedding rows, users' KV prefixes, and the ghosts that remember what was lost."""
