"""A profile: pool, rows, link, model shape, cost coefficients and SLO of one kind of node.

Shipped profiles have names. A profile of your own, for instance one that `helmctl calibrate` wrote,
is named by its path: anything with a slash or ending in `.toml`.
"""

import math
import tomllib
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

DeviceName = Literal["cpu", "cuda"]
PROFILE_BYTES_MAX = 1 << 20  # a profile is a page of text; anything larger is another file


class ModelShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shape of the HSTU ranker. One token is one history event: an item and its action."""

    layers: int
    dim: int
    heads: int
    qk_dim: int  # per head
    v_dim: int  # per head
    tokens_max: int
    actions: int
    time_buckets: int


class CostConstants(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Milliseconds of one request on an idle node; starting point of the online regression."""

    ms_fixed: float
    ms_per_hit_row: float
    ms_per_missing_row: float
    ms_per_token: float
    ms_per_token_squared: float
    ms_per_candidate: float
    ms_kv_hit_floor: float
    kv_hit_compute_ratio: float = 0.0  # share of the cached tokens' compute that a hit still pays


class FittedTerm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How well one term of the cost model fits what was measured."""

    term: str
    formula: str
    samples: int
    r_squared: float
    residual_ms_median: float  # of the absolute residuals
    residual_ms_max: float


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where, when and with what the cost constants of a profile were measured."""

    base: str  # the shipped profile that the rest was taken from
    device: str
    emulated: bool
    host: str
    processor: str
    at: str  # ISO 8601, UTC
    versions: dict[str, str]
    terms: list[FittedTerm]


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of node. Everything a body needs to build the same brain."""

    name: str
    description: str
    pool_bytes: int
    page_bytes: int
    row_bytes: int
    rows: int
    kv_token_bytes: int
    link_bytes_per_second: float
    refill_bytes_per_second: float
    move_ratio_per_second: float
    slo_ms: float
    emb_ratio_start: float
    candidates: int
    batch_max: int
    queue_max: int
    model: ModelShape
    cost: CostConstants
    device: DeviceName = "cpu"  # what a node of this profile runs on unless its command line says otherwise
    paced: bool = False  # an emulated device computes no faster than `cost` says, however fast its host is
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        """Refuse a profile whose parts do not fit together, naming the field."""
        if self.pool_bytes % self.page_bytes:
            raise ValueError("pool_bytes must be a multiple of page_bytes")
        if self.page_bytes % self.row_bytes:
            raise ValueError("page_bytes must be a multiple of row_bytes")
        if self.page_bytes < self.kv_token_bytes:
            raise ValueError("page_bytes must hold at least one token of KV")

    @property
    def kind(self) -> str:
        """Name of the shipped profile behind this one: what a control plane without the file knows it by."""
        return self.name if self.calibration is None else self.calibration.base

    @property
    def pages(self) -> int:
        """Pages in the pool."""
        return self.pool_bytes // self.page_bytes

    @property
    def rows_per_page(self) -> int:
        """Embedding rows in one page."""
        return self.page_bytes // self.row_bytes

    @property
    def block_tokens(self) -> int:
        """Tokens of KV in one page; also the granularity of prefix identity."""
        return self.page_bytes // self.kv_token_bytes


def load_profile(name_or_path: str) -> Profile:
    """Read a shipped profile by name or a profile of your own by path; `ValueError` says in one line what is wrong."""
    if is_path(name_or_path):
        return _own_profile(Path(name_or_path))
    if name_or_path not in available_profiles():
        known = ", ".join(available_profiles())
        raise ValueError(f"profile: unknown {name_or_path!r}, choose one of {known}, or the path of a profile file")
    return _decode(resources.files("agents.profiles").joinpath(f"{name_or_path}.toml").read_text("utf-8"))


def is_path(name_or_path: str) -> bool:
    """Whether a profile is meant by its file: a shipped name has neither slash nor suffix."""
    return "/" in name_or_path or name_or_path.endswith(".toml")


def profile_reference(name_or_path: str) -> str:
    """A name as it is, a path made absolute: what another process, started elsewhere, finds the same profile by."""
    return str(Path(name_or_path).absolute()) if is_path(name_or_path) else name_or_path


def available_profiles() -> list[str]:
    """Names of the shipped profiles."""
    folder = resources.files("agents.profiles")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _own_profile(path: Path) -> Profile:
    try:
        if path.stat().st_size > PROFILE_BYTES_MAX:
            raise ValueError(f"profile {path}: larger than {PROFILE_BYTES_MAX} bytes")
        profile = _decode(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"profile {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"profile {path}: {error}") from error
    _check_numbers(path, profile)
    return profile


def _decode(text: str) -> Profile:
    return msgspec.convert(tomllib.loads(text), Profile)


def _check_numbers(path: Path, profile: Profile) -> None:
    """Sizes, rates and shapes are above zero, cost constants are not below it, and all of them are finite."""
    for part, lowest in ((profile, 1e-9), (profile.model, 1), (profile.cost, 0.0)):
        for field in part.__struct_fields__:
            value = getattr(part, field)
            if not isinstance(value, bool) and isinstance(value, int | float) and not (math.isfinite(value) and value >= lowest):
                raise ValueError(f"profile {path}: {field} must be a finite number {'>= 0' if lowest == 0.0 else '> 0'}, not {value}")
    if profile.emb_ratio_start >= 1.0:
        raise ValueError(f"profile {path}: emb_ratio_start must be below 1")
