"""Rows of a suite: means over seeds, intervals paired by seed, distances, and how much of the possible gain a method gets."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from agents.sim.evaluation.optimum import Optimum, distance

_BOOTSTRAPS = 2_000
_ONSET_SECONDS_MAX = 10.0  # later than this, an alarm is about something else
_MEANS = (
    "utilisation",
    "utilisation_peak",
    "latency_ms_mean",
    "latency_ms_p50",
    "latency_ms_p99",
    "latency_ms_p999",
    "service_ms_mean",
    "slo_ms",
    "slo_ratio",
    "throughput_per_second",
    "emb_hit_ratio",
    "kv_hit_ratio",
    "load_peak_to_mean",
    "refill_bytes",
    "moves",
    "reversals",
    "emb_ratio_min",
    "emb_ratio_max",
)


def row_of(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds of one method in one cell; overloaded when any seed was."""
    cells = [answer["cell"] for answer in answers]
    row: dict[str, Any] = {"seeds": len(cells), "overloaded": any(cell["overloaded"] for cell in cells)}
    for name in _MEANS:
        values = [cell[name] for cell in cells if cell[name] is not None]
        row[name] = float(np.mean(values)) if values else None
    row["latency_ms_p99_ci"] = interval([cell["latency_ms_p99"] for cell in cells if cell["latency_ms_p99"] is not None])
    return row


def alarms(answers: Sequence[dict[str, Any]], onsets_seconds: Sequence[float], measured_seconds: tuple[float, float]) -> dict[str, Any]:
    """What the recovery layers did between both seconds.

    Seconds from an onset to a node's alarm (their median), the share of nodes and onsets without one within ten
    seconds, and the alarms that no onset explains, per node and hour.
    """
    begin, end = measured_seconds
    delays: list[float] = []
    onsets, false, hours = 0, 0, 0.0
    for answer in answers:
        for found in answer["cell"]["alarms_seconds"]:
            late = [[at - onset for at in found if 0.0 <= at - onset < _ONSET_SECONDS_MAX] for onset in onsets_seconds]
            delays += [min(each) for each in late if each]
            onsets += len(onsets_seconds)
            false += sum(at >= begin for at in found) - sum(map(len, late))
            hours += (end - begin) / 3600.0
    return {
        "onset_delay_seconds": float(np.median(delays)) if delays else None,
        "onsets_missed_ratio": 1.0 - len(delays) / onsets if onsets else None,
        "false_alarms_per_node_hour": false / hours if hours else None,
    }


def interval(values: Sequence[float]) -> list[float] | None:
    """95 % bootstrap interval of a mean; `None` for fewer than two values."""
    if len(values) < 2:
        return None
    chance = np.random.default_rng(0)
    means = chance.choice(np.asarray(values, np.float64), (_BOOTSTRAPS, len(values))).mean(axis=1)
    return [float(edge) for edge in np.quantile(means, (0.025, 0.975))]


def change(measured: Sequence[dict[str, Any]], compared: Sequence[dict[str, Any]], figure: str = "latency_ms_p99") -> dict[str, Any] | None:
    """Relative change of a figure, paired by seed; `None` where either was overloaded, because that percentage means nothing."""
    by_seed = {answer["cell"]["seed"]: answer["cell"] for answer in compared}
    pairs = [(answer["cell"], by_seed[answer["cell"]["seed"]]) for answer in measured if answer["cell"]["seed"] in by_seed]
    if not pairs or any(cell["overloaded"] for pair in pairs for cell in pair):
        return None
    changes = [one[figure] / other[figure] - 1.0 for one, other in pairs]
    return {"mean": float(np.mean(changes)), "ci": interval(changes), "pairs": len(changes)}


def meets_slo(cell: dict[str, Any]) -> bool:
    """Whether a run was carried: not overloaded, and with a P99 within the SLO."""
    return not cell["overloaded"] and cell["latency_ms_p99"] is not None and cell["latency_ms_p99"] <= cell["slo_ms"]


def capacity(factors: Sequence[float], cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The factor on the arrivals up to which P99 meets the SLO, between the last that does and the first that does not.

    There is a cell for every factor up to one that is not carried. `bound` says where the truth lies beyond the factors
    that were tried: `below` or `above`; null where it is between them.
    """
    meets = [meets_slo(cell) for cell in cells]
    first = meets.index(False) if False in meets else len(meets)
    if first == 0 or first == len(meets):
        return {"factor": factors[max(first - 1, 0)], "bound": "below" if first == 0 else "above"}
    last, next_ = cells[first - 1], cells[first]
    if next_["overloaded"] or next_["latency_ms_p99"] is None:
        return {"factor": factors[first - 1], "bound": None}  # the latency of a queue that only grows says nothing of where it began
    tails = np.log([last["latency_ms_p99"], next_["latency_ms_p99"]])
    return {"factor": float(np.interp(np.log(last["slo_ms"]), tails, factors[first - 1 : first + 1])), "bound": None}


def on_seeds_of(some: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those answers whose seed is among the others': a mean over more streams is no measure of a gap on few."""
    seeds = {answer["cell"]["seed"] for answer in some}
    return [answer for answer in answers if answer["cell"]["seed"] in seeds]


def gap_closed(method: dict[str, Any], s1: dict[str, Any], s3: dict[str, Any]) -> float | None:
    """Share of the P99 gap between the best static and the clairvoyant schedule; `None` where there is no gap or overload."""
    if any(row["overloaded"] for row in (method, s1, s3)):
        return None
    gap = s1["latency_ms_p99"] - s3["latency_ms_p99"]
    return float((s1["latency_ms_p99"] - method["latency_ms_p99"]) / gap) if gap > 0.005 * s1["latency_ms_p99"] else None


def distances(answers: Sequence[dict[str, Any]], optima: dict[int, Optimum]) -> dict[str, float] | None:
    """Mean distance of the runs whose seed has an optimum, to its point and to its plateau."""
    found = [distance(np.array(answer["ratios"]), optima[answer["cell"]["seed"]]) for answer in answers if answer["cell"]["seed"] in optima]
    if not found:
        return None
    return {
        "distance": float(np.mean([one.to_point for one in found])),
        "distance_outside_plateau": float(np.mean([one.to_plateau for one in found])),
    }


def ratio_distance(answers: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> float | None:
    """Mean absolute difference of the ratios of two methods on the same seeds, for instance to S3."""
    by_seed = {answer["cell"]["seed"]: np.array(answer["ratios"]) for answer in other}
    found = [
        float(np.abs(np.array(answer["ratios"]) - by_seed[answer["cell"]["seed"]]).mean())
        for answer in answers
        if answer["cell"]["seed"] in by_seed
    ]
    return float(np.mean(found)) if found else None
