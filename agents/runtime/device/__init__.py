"""Devices: the memory a node shares between its caches, and the work done on it, behind one interface."""
