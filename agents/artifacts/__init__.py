"""Bytes of a policy to checked arrays and card; no torch, no pickle, no I/O."""
