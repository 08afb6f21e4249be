"""The tests of everything. They and every process they start use compiled kernels of exactly these sources.

Done here, because this package is imported before anything else of ours: once Numba is, it is too late.
"""

from helmctl.supervisor.state import find_state_folder

_STATE = find_state_folder({})  # the clone's: what the tests' settings name is empty, and everything would be compiled again
_STATE.prepare()
_STATE.adopt_caches()
