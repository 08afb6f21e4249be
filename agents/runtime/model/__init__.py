"""The HSTU ranker in torch."""
