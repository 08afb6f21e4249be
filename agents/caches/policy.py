"""Knobs of the two caches, as plain numbers that kernels take as one argument."""

from enum import IntEnum
from typing import NamedTuple


class Admission(IntEnum):
    """Who gets into a full cache."""

    EVERYONE = 0
    SECOND_REFERENCE = 1  # who was referenced before within the window
    FREQUENCY = 2  # who is referenced more often than the one that would give way (TinyLFU's rule)
    VALUE_DENSITY = 3  # whose references save more milliseconds per page than those of the one that would give way
    PROBATION = 4  # everyone, but who was not referenced before within the window goes before those who were


class CachePolicy(NamedTuple):
    """How rows and prefixes get in and which go first; see `cache_policy` for the named ones."""

    row_admission: int  # an Admission; rows are alike, so VALUE_DENSITY is not among theirs
    kv_admission: int  # an Admission
    kv_window_ns: int  # within this gap a request is a user's second
    kv_half_life_ns: int  # of the request counts that FREQUENCY and VALUE_DENSITY compare
    kv_uses_max: int  # saturation of a prefix's use count: who was popular long ago must give way to who is now
    kv_credit_uses: int  # that a prefix on PROBATION starts with when its user was there before within the window
    kv_recency_only: bool  # LRU instead of recompute cost per byte
    clock_uses_max: int  # saturation of a row's use count: rounds of the hand it can survive
    rescue_uses_min: int  # rows used at least so often are moved, not dropped, when their page goes
    rescue_rows_per_page: int  # bound of such moves per page

    @property
    def rows_wait(self) -> bool:
        """Whether a row gets in only when the doorkeeper remembers it."""
        return self.row_admission == Admission.SECOND_REFERENCE

    @property
    def user_window_ns(self) -> int:
        """Window behind which a value curve of users must look: whoever is on probation takes no room from others. 0: none."""
        return self.kv_window_ns if self.kv_admission in (Admission.SECOND_REFERENCE, Admission.PROBATION) else 0

    @property
    def user_refusal_window_ns(self) -> int:
        """Gap beyond which a user's prefix is not kept at all; 0 where every prefix is."""
        return self.kv_window_ns if self.kv_admission == Admission.SECOND_REFERENCE else 0


SECOND = 1_000_000_000
RESCUE_ROWS_MAX = 256  # of one page: each costs some half a microsecond of the node's own time
_FREQUENCY = int(Admission.FREQUENCY)
ADMISSIONS = ("shipped", "none", "second-request", "tinylfu", "value-density")


def cache_policy(admission: str, rows_per_page: int) -> CachePolicy:
    """Policy by its name on the command line; `ValueError` lists the names if it is not among them.

    `shipped` is what the product is meant to run with. The others are for comparison: `none` is the paper's setting, LRU
    that admits everyone; `second-request` keeps no prefix before its user's second request within the window; `tinylfu` admits
    rows and prefixes by frequency; `value-density` admits prefixes by milliseconds saved per page. Both leave rows as shipped:
    all rows are worth the same.
    """
    rules = _shipped(rows_per_page)
    if admission == "shipped":
        return rules
    if admission == "none":
        everyone = int(Admission.EVERYONE)
        return rules._replace(row_admission=everyone, kv_admission=everyone, kv_recency_only=True, clock_uses_max=1)
    if admission == "tinylfu":
        return rules._replace(row_admission=_FREQUENCY, kv_admission=_FREQUENCY, kv_recency_only=True)
    if admission == "second-request":
        return rules._replace(kv_admission=int(Admission.SECOND_REFERENCE))
    if admission == "value-density":
        return rules._replace(kv_admission=int(Admission.VALUE_DENSITY))
    raise ValueError(f"admission: unknown {admission!r}, choose one of {', '.join(ADMISSIONS)}")


def _shipped(rows_per_page: int) -> CachePolicy:
    """A user is expected again after a second request within 60 s, a row after a second miss that the doorkeeper remembers."""
    return CachePolicy(
        row_admission=int(Admission.SECOND_REFERENCE),
        kv_admission=int(Admission.PROBATION),
        kv_window_ns=60 * SECOND,
        kv_half_life_ns=300 * SECOND,
        kv_recency_only=False,
        kv_uses_max=2,
        kv_credit_uses=1,
        clock_uses_max=3,
        rescue_uses_min=2,
        rescue_rows_per_page=min(max(1, rows_per_page // 4), RESCUE_ROWS_MAX),
    )
