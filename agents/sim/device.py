"""What a device would have measured: the profile's cost constants applied to a booked batch.

The stages of a batch follow each other, so its service time is their sum. Refill takes its part of the link
from the rows that are fetched in the foreground.
"""

from typing import Any

from agents.numerics.cost import Cost
from agents.numerics.jit import kernel


@kernel
def cost_constants(body: Any) -> Cost:
    """The true cost of a node, from its record; what the node believes is its own regression."""
    return Cost(
        body.ms_fixed,
        body.ms_per_hit_row,
        body.ms_per_missing_row,
        body.ms_per_token,
        body.ms_per_token_squared,
        body.ms_per_candidate,
        body.ms_kv_hit_floor,
        body.kv_hit_compute_ratio,
    )


@kernel
def gather_ms(cost: Cost, rows: float, missing: float, link_share: float) -> float:
    """Milliseconds for `rows` of a batch, of which `missing` come over a link of which refill leaves `link_share` (0..1]."""
    return (rows - missing) * cost.ms_per_hit_row + missing * cost.ms_per_missing_row / link_share
