"""Evaluation: which runs answer which question, and what their figures say together."""
