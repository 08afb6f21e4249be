"""Runs HELM's processes on one machine: one table of processes, checks before the start, supervision, a clean end."""
