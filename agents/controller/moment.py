"""One decision's inputs as a flat record, for kernels; the numbers of an `Observation` in its order.

A fleet's kernel keeps one record per node; a node keeps one and fills it from its observation.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.controller.interface import Observation

_CURVES = {"capacity_ratio", "emb_value", "kv_value"}
_WHOLE = {"now_ns", "since_last_move_ns", "reuse_age_ns"}
_OWN = (
    ("rule_ratio", "f8"),  # what the rule proposes where one is the base; else unused
    ("rule_holds", "i8"),  # 1: it proposes to stay
    ("holding", "i8"),  # 1: an operator's override or pin is in force
    ("held_ratio", "f8"),  # its ratio
    ("proposing", "i8"),  # 0: advisory or off, the proposal is not heard
    ("data_age_ns", "i8"),  # since the last request
    ("refill_room_ratio", "f8"),  # share of the pool that the refill budget lets EMB grow by now
)
_BEFORE = list(Observation._fields).index("capacity_ratio")
_AFTER = _BEFORE + len(_CURVES)

MOMENT = np.dtype(
    [(name, "i8" if name in _WHOLE else "f8") for name in Observation._fields if name not in _CURVES] + list(_OWN), align=True
)


def new_moments(count: int) -> NDArray[Any]:
    """[count] records in which no operator holds and proposals are heard."""
    moments = np.zeros(count, MOMENT)
    moments["proposing"] = 1
    moments["refill_room_ratio"] = math.inf
    return moments


def fill(
    moments: NDArray[Any], observation: Observation, rule_ratio: float = math.nan, rule_holds: bool = False, held: bool = False
) -> None:
    """Write an observation into the first record, for the layers; what only the guard asks for is left open."""
    own = (rule_ratio, rule_holds, held, observation.emb_ratio, 1, 0, math.inf)
    moments[0] = observation[:_BEFORE] + observation[_AFTER:] + own
