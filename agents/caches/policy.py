"""Knobs of the two caches, as plain numbers that kernels take as one argument."""

from enum import IntEnum
from typing import NamedTuple


class Admission(IntEnum):
    """Who gets into a full cache."""

    EVERYONE = 0
    SECOND_REFERENCE = 1  # who was referenced before within the window
    FREQUENCY = 2  # who is referenced more often than the one that would give way (TinyLFU's rule)
    VALUE_DENSITY = 3  # whose references save more milliseconds per page than those of the one that would give way


class CachePolicy(NamedTuple):
    """How rows and prefixes get in and which go first; see `cache_policy` for the named ones."""

    row_admission: int  # an Admission; rows are alike, so VALUE_DENSITY is not among theirs
    kv_admission: int  # an Admission
    kv_window_ns: int  # second request within this gap keeps the prefix
    emb_window_ns: int  # second touch within this gap keeps the row
    kv_half_life_ns: int  # of the request counts that FREQUENCY and VALUE_DENSITY compare
    kv_recency_only: bool  # LRU instead of recompute cost per byte
    clock_uses_max: int  # saturation of a row's use count: rounds of the hand it can survive
    rescue_uses_min: int  # rows used at least so often are moved, not dropped, when their page goes
    rescue_rows_per_page: int  # bound of such moves per page

    @property
    def row_window_ns(self) -> int:
        """Window behind which a value curve of rows must look; 0 where one reference is enough."""
        return self.emb_window_ns if self.row_admission == Admission.SECOND_REFERENCE else 0

    @property
    def user_window_ns(self) -> int:
        """The same for users."""
        return self.kv_window_ns if self.kv_admission == Admission.SECOND_REFERENCE else 0


SECOND = 1_000_000_000
RESCUE_ROWS_MAX = 256  # of one page: each costs some half a microsecond of the node's own time
_FREQUENCY = int(Admission.FREQUENCY)
ADMISSIONS = ("shipped", "none", "tinylfu", "value-density")


def cache_policy(admission: str, rows_per_page: int) -> CachePolicy:
    """Policy by its name on the command line; `ValueError` lists the names if it is not among them.

    `shipped` is what the product is meant to run with. The others are for comparison: `none` is the paper's setting, LRU
    that admits everyone; `tinylfu` admits rows and prefixes by frequency; `value-density` admits prefixes by
    milliseconds saved per page, and rows as `shipped` does, because all rows are worth the same.
    """
    rules = _shipped(rows_per_page)
    if admission == "shipped":
        return rules
    if admission == "none":
        everyone = int(Admission.EVERYONE)
        return rules._replace(row_admission=everyone, kv_admission=everyone, kv_recency_only=True, clock_uses_max=1)
    if admission == "tinylfu":
        return rules._replace(row_admission=_FREQUENCY, kv_admission=_FREQUENCY, kv_recency_only=True)
    if admission == "value-density":
        return rules._replace(kv_admission=int(Admission.VALUE_DENSITY))
    raise ValueError(f"admission: unknown {admission!r}, choose one of {', '.join(ADMISSIONS)}")


def _shipped(rows_per_page: int) -> CachePolicy:
    """60 s windows: beyond that a second request says little about a third."""
    return CachePolicy(
        row_admission=int(Admission.SECOND_REFERENCE),
        kv_admission=int(Admission.SECOND_REFERENCE),
        kv_window_ns=60 * SECOND,
        emb_window_ns=60 * SECOND,
        kv_half_life_ns=300 * SECOND,
        kv_recency_only=False,
        clock_uses_max=3,
        rescue_uses_min=2,
        rescue_rows_per_page=min(max(1, rows_per_page // 4), RESCUE_ROWS_MAX),
    )
