"""Versions of the learned policy: kept, rolled out to nodes, trained anew where they run."""
