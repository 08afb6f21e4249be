"""Shipped training configurations."""
