"""A profile: pool, rows, link, model shape, cost coefficients and SLO of one kind of node."""

import tomllib
from importlib import resources

import msgspec


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

    def __post_init__(self) -> None:
        """Refuse a profile whose parts do not fit together, naming the field."""
        if self.pool_bytes % self.page_bytes:
            raise ValueError("pool_bytes must be a multiple of page_bytes")
        if self.page_bytes % self.row_bytes:
            raise ValueError("page_bytes must be a multiple of row_bytes")
        if self.page_bytes < self.kv_token_bytes:
            raise ValueError("page_bytes must hold at least one token of KV")

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


def load_profile(name: str) -> Profile:
    """Read a shipped profile by name; `ValueError` lists the known ones if it is not among them."""
    if name not in available_profiles():
        raise ValueError(f"profile: unknown {name!r}, choose one of {', '.join(available_profiles())}")
    text = resources.files("agents.profiles").joinpath(f"{name}.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), Profile)


def available_profiles() -> list[str]:
    """Names of the shipped profiles."""
    folder = resources.files("agents.profiles")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
