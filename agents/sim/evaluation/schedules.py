"""S3: schedules that a clairvoyant could have driven, each tried in closed loop; the one with the least P99 counts.

The cheapest path through the device time of every window under the actuator's limits (`clairvoyant_plan`) is not the one with
the shortest tail: it stands where the calm is cheapest when a burst begins. So it is also tried leaning towards
the best static split, and begun early. That static split is one of the candidates: S3 is never worse than S1.
"""

import numpy as np
from numpy.typing import NDArray

from agents.controller.baselines.s3 import Refill, clairvoyant_plan
from agents.profiles import Profile

WINDOW_SECONDS = 5
LEANS = (0.3, 0.6, 1.0)  # share of the way from the best static split to the cheapest path
LEADS_WINDOWS = (0, 2)
_SMOOTH_SECONDS = 15  # a second's requests are few: their chance is not worth moving for


def schedules_of(
    service_ms: NDArray[np.float64], grid: NDArray[np.float64], best_static: float, profile: Profile, nodes: int
) -> list[tuple[float, ...]]:
    """Ratios per window of every candidate but the static one, from the fleet's `service_ms` [G, seconds] at `grid` [G]."""
    path = _cheapest(service_ms / nodes, grid, profile)
    return [
        tuple(float(ratio) for ratio in (best_static + lean * (_begun_early(path, lead) - best_static)).round(4))
        for lean in LEANS
        for lead in LEADS_WINDOWS
    ]


def _cheapest(service_ms: NDArray[np.float64], grid: NDArray[np.float64], profile: Profile) -> NDArray[np.float64]:
    windows = service_ms.shape[1] // WINDOW_SECONDS
    smooth = np.stack([_smoothed(one) for one in service_ms])[:, : windows * WINDOW_SECONDS]
    refill = Refill(
        pool_bytes=profile.pool_bytes,
        move_ratio_per_second=profile.move_ratio_per_second,
        refill_bytes_per_second=profile.refill_bytes_per_second,
        interference_ms_per_byte=1e3 / profile.link_bytes_per_second,
    )
    cost = smooth.reshape(grid.shape[0], windows, WINDOW_SECONDS).sum(axis=2).T
    return clairvoyant_plan(cost, grid, float(WINDOW_SECONDS), refill).emb_ratios


def _smoothed(series: NDArray[np.float64]) -> NDArray[np.float64]:
    edge = _SMOOTH_SECONDS // 2
    return np.convolve(np.pad(series, edge, mode="edge"), np.full(_SMOOTH_SECONDS, 1.0 / _SMOOTH_SECONDS), "valid")


def _begun_early(path: NDArray[np.float64], windows: int) -> NDArray[np.float64]:
    return np.concatenate([path[windows:], np.repeat(path[-1:], windows)])
