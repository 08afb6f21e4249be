"""Facts to be sent, and answers to be replayed, kept in tables."""
