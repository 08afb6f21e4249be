"""Django apps: what people and rows are about."""
