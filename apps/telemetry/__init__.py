"""Frames in, roll-ups kept, series and metrics out."""
