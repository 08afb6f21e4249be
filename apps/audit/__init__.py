"""Who changed what and why, and what happened: append-only."""
