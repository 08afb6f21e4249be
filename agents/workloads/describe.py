"""What a stream is like: measured skew, revisits and working sets, so that a log can be matched to a generator."""

from itertools import takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.workloads.generators import NS_PER_SECOND
from agents.workloads.request import Request, Workload

ADMISSION_NS = 60 * NS_PER_SECOND  # a second request within this time admits a user to KV


class _Facts(NamedTuple):
    at_ns: NDArray[np.int64]
    users: NDArray[np.int64]
    tokens: NDArray[np.int64]
    rows: list[NDArray[np.int64]]


def describe(workload: Workload, seconds: float) -> dict[str, float | str]:
    """Measured facts of the first `seconds` of a stream; times are stream time, NaN where nothing was seen."""
    end_ns = round(seconds * NS_PER_SECOND)
    requests = list(map(_compact, takewhile(lambda request: request.at_ns < end_ns, workload.requests())))
    facts = _Facts(
        np.array([request[0] for request in requests], dtype=np.int64),
        np.array([request[1] for request in requests], dtype=np.int64),
        np.array([request[2] for request in requests], dtype=np.int64),
        [request[3] for request in requests],
    )
    return {"workload": workload.name, "seconds": seconds, **_arrivals(facts, seconds), **_revisits(facts), **_items(facts)}


def _compact(request: Request) -> tuple[int, int, int, NDArray[np.int64]]:
    return request.at_ns, request.user, request.history_items.shape[0], request.candidates


def _arrivals(facts: _Facts, seconds: float) -> dict[str, float]:
    per_second = np.bincount(facts.at_ns // NS_PER_SECOND, minlength=int(seconds)) if facts.at_ns.size else np.zeros(max(1, int(seconds)))
    mean = float(per_second.mean())
    return {
        "requests": float(facts.at_ns.size),
        "requests_per_second": facts.at_ns.size / seconds,
        "requests_per_second_peak_10s": _peak(facts.at_ns, 10 * NS_PER_SECOND) / 10.0,
        "arrivals_fano_1s": float(per_second.var()) / mean if mean else float("nan"),
    }


def _revisits(facts: _Facts) -> dict[str, float]:
    """How soon users come back; `admitted_ratio` is the share of requests within 60 s of the user's last one."""
    order = np.lexsort((facts.at_ns, facts.users))
    users, times = facts.users[order], facts.at_ns[order]
    gaps = np.diff(times)[np.diff(users) == 0]
    distinct, counts = np.unique(facts.users, return_counts=True)
    top = np.sort(counts)[::-1]
    return {
        "users": float(distinct.size),
        "users_distinct_60s_mean": _distinct_per_window(facts),
        "user_top_1pct_ratio": _share(top, 0.01),
        "user_top_10pct_ratio": _share(top, 0.10),
        "revisit_seconds_p50": _quantile(gaps / NS_PER_SECOND, 0.5),
        "revisit_seconds_p90": _quantile(gaps / NS_PER_SECOND, 0.9),
        "admitted_ratio": float((gaps < ADMISSION_NS).sum()) / facts.users.size if facts.users.size else float("nan"),
        "history_tokens_p10": _quantile(facts.tokens, 0.1),
        "history_tokens_p50": _quantile(facts.tokens, 0.5),
        "history_tokens_p90": _quantile(facts.tokens, 0.9),
        "history_tokens_mean": float(facts.tokens.mean()) if facts.tokens.size else float("nan"),
    }


def _items(facts: _Facts) -> dict[str, float]:
    drawn = np.concatenate(facts.rows) if facts.rows else np.empty(0, np.int64)
    _, counts = np.unique(drawn, return_counts=True)
    top = np.sort(counts)[::-1]
    minutes = facts.at_ns // ADMISSION_NS
    whole = [np.unique(np.concatenate([facts.rows[i] for i in np.flatnonzero(minutes == minute)])).size for minute in np.unique(minutes)]
    return {
        "rows_distinct": float(counts.size),
        "rows_distinct_60s_mean": float(np.mean(whole)) if whole else float("nan"),
        "row_top_1pct_ratio": _share(top, 0.01),
        "row_top_10pct_ratio": _share(top, 0.10),
        "rows_seen_once_ratio": float((counts == 1).sum()) / counts.size if counts.size else float("nan"),
    }


def _distinct_per_window(facts: _Facts) -> float:
    windows = facts.at_ns // ADMISSION_NS
    sizes = [np.unique(facts.users[windows == window]).size for window in np.unique(windows)]
    return float(np.mean(sizes)) if sizes else float("nan")


def _peak(at_ns: NDArray[np.int64], width_ns: int) -> float:
    if not at_ns.size:
        return 0.0
    return float((np.arange(1, at_ns.size + 1) - np.searchsorted(at_ns, at_ns - width_ns, side="right")).max())


def _share(descending: NDArray[np.int64], ratio: float) -> float:
    total = int(descending.sum())
    return float(descending[: max(1, round(descending.size * ratio))].sum()) / total if total else float("nan")


def _quantile(values: NDArray[np.int64] | NDArray[np.float64], level: float) -> float:
    return float(np.quantile(values, level)) if values.size else float("nan")
