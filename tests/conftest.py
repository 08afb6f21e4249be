"""Compiled kernels of exactly these sources, for the tests and every process they start."""

from helmctl.supervisor.state import find_state_folder

_STATE = find_state_folder({})  # the clone's: what the tests' settings name is empty, and everything would be compiled again
_STATE.prepare()
_STATE.adopt_caches()
