"""Nouns without models that every app may use."""
