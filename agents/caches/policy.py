"""Knobs of the two caches, as plain numbers that kernels take as one argument."""

from typing import NamedTuple


class CachePolicy(NamedTuple):
    """How rows and prefixes get in and which go first.

    `shipped` admits a user's prefix, and a row, on the second reference within the window
    (the second lever after routing); `none` admits everything and evicts prefixes by recency alone.
    """

    admit_all: bool
    kv_window_ns: int  # second request within this gap keeps the prefix
    emb_window_ns: int  # second touch within this gap keeps the row
    kv_recency_only: bool  # LRU instead of recompute cost per byte
    clock_uses_max: int  # saturation of a row's use count: rounds of the hand it can survive
    rescue_uses_min: int  # rows used at least so often are moved, not dropped, when their page goes
    rescue_rows_per_page: int  # bound of such moves per page


SECOND = 1_000_000_000
RESCUE_ROWS_MAX = 256  # of one page: each costs some half a microsecond of the node's own time


def shipped(rows_per_page: int) -> CachePolicy:
    """What the product ships. 60 s windows: beyond that a second request says little about a third."""
    return CachePolicy(
        admit_all=False,
        kv_window_ns=60 * SECOND,
        emb_window_ns=60 * SECOND,
        kv_recency_only=False,
        clock_uses_max=3,
        rescue_uses_min=2,
        rescue_rows_per_page=min(max(1, rows_per_page // 4), RESCUE_ROWS_MAX),
    )


def admit_everyone(rows_per_page: int) -> CachePolicy:
    """The paper's setting: LRU without admission."""
    return shipped(rows_per_page)._replace(admit_all=True, kv_recency_only=True, clock_uses_max=1)


def cache_policy(admission: str, rows_per_page: int) -> CachePolicy:
    """Policy by its name on the command line; `ValueError` names the two that exist."""
    if admission == "shipped":
        return shipped(rows_per_page)
    if admission == "none":
        return admit_everyone(rows_per_page)
    raise ValueError(f"admission: unknown {admission!r}, choose shipped or none")
