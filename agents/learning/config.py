"""What a training run is made of, as a TOML file; checked before any work starts.

`helm` and `paper` are shipped; another configuration is named by its path.
"""

import math
import tomllib
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from agents.artifacts.card import Action
from agents.controller.features import HELM, PAPER

CONFIG_BYTES_MAX = 1 << 16  # a configuration is a page of text


class Hardware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of node, and the load it is trained under."""

    profile: str
    rate_factor: tuple[float, float]  # on a workload's arrivals: drawn evenly between both


class Episodes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fleets that are trained on. `streams` request streams are drawn once and come again and again."""

    hardware: tuple[Hardware, ...]
    workloads: dict[str, float]  # a demo regime or CATALOGUE/REGIME, and its requests/s a node outside bursts
    admissions: tuple[str, ...] = ("shipped", "none")
    nodes: int = 2
    lesson_nodes: tuple[int, ...] = ()  # fleets of which sizes are taught on, by laps through the workloads; none: of `nodes`
    seconds: float = 300.0
    hold_seconds: float = 10.0  # before the first decision, so that rates and tails are known
    start_ratio: tuple[float, float] = (0.2, 0.8)
    streams: int = 24
    settled: bool = True  # begin as after long running; else empty

    def of_size(self, nodes: int) -> "Episodes":
        """The same on fleets of `nodes` alone, for those that step fleets side by side or take one node for a fleet."""
        return msgspec.structs.replace(self, nodes=nodes, lesson_nodes=())


class Reward(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See `rewards.py`."""

    refused_slos: float = 2.0  # the latency that a refused request counts with
    scale: float = 20.0  # 5 % of the stream's mean cost count as one
    move_weight: float = 0.5  # of a move by the whole pool
    most: float = 5.0  # in either direction: an overloaded minute must not drown the rest


class Imitation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Warm start: the policy first learns to say what a teacher says. No passes: start from nothing."""

    rule: str = "clairvoyant"  # see `clairvoyant.py`; or b5, b7
    passes: int = 40
    batch: int = 512
    learning_rate: float = 2e-3  # at first; it falls to nothing along a cosine
    blur_deviations: float = 1.0  # of the noise on `imitate.SIZES`
    noise_deviations: float = 0.1  # of the noise on all else
    move_weight: float = 0.2  # of a wish to move by the whole pool, in mean costs of the stream


class Ppo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Proximal policy optimisation, under the names of stable-baselines3."""

    steps: int
    steps_per_slot: int = 58  # between two updates: an episode
    fleets: int = 4  # stepped in turn; slots = fleets x nodes
    batch: int = 116
    epochs: int = 8
    gamma: float = 0.9  # ten decisions: half a minute to move and refill, and as much to see it
    gae_lambda: float = 0.9
    clip_range: float = 0.2
    learning_rate: float = 1e-4
    entropy: float = 0.0
    noise_log: float = -3.5  # steps only: ln of the exploration's weights, see `train.new_model`
    validation_streams: int = 12  # unseen ones, on which PPO must beat the warm start or is dropped
    critic_share: float = 0.15  # of the steps, at first, in which only the critic learns


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One training run but for its seed."""

    name: str
    features: Literal["helm", "paper"]
    hidden: list[int]
    action: Action
    episodes: Episodes
    ppo: Ppo
    reward: Reward = Reward()
    imitation: Imitation = Imitation()

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, naming the field."""
        episodes, ppo = self.episodes, self.ppo
        _require(bool(self.name) and self.name.isidentifier(), "name: must be a word")
        _require(bool(self.hidden) and all(0 < units <= 256 for units in self.hidden) and len(self.hidden) <= 3, "hidden: 1 to 3 layers")
        _require(bool(episodes.hardware), "episodes.hardware: at least one kind of node")
        _require(bool(episodes.workloads), "episodes.workloads: at least one")
        _require(bool(episodes.admissions), "episodes.admissions: at least one")
        _require(1 <= episodes.nodes <= 64, "episodes.nodes: must be 1 to 64")
        _require(all(1 <= nodes <= 64 for nodes in episodes.lesson_nodes), "episodes.lesson_nodes: must be 1 to 64 each")
        _require(
            not episodes.lesson_nodes or episodes.nodes in episodes.lesson_nodes, "episodes.lesson_nodes: must name episodes.nodes, too"
        )
        _require(1 <= episodes.streams <= 10_000, "episodes.streams: must be 1 to 10,000")
        low, high = episodes.start_ratio
        _require(0.0 < low <= high < 1.0, "episodes.start_ratio: must be low, high inside (0, 1)")
        _require(
            math.isfinite(episodes.seconds) and 0.0 <= episodes.hold_seconds < episodes.seconds <= 3600.0,
            "episodes.seconds: at most an hour, and longer than hold_seconds",
        )
        _require(episodes.seconds - episodes.hold_seconds >= 2 * self.action.period_seconds, "episodes.seconds: at least two decisions")
        _require(all(0.0 < rate < math.inf for rate in episodes.workloads.values()), "episodes.workloads: rates above zero")
        _require(all(0.0 < at.rate_factor[0] <= at.rate_factor[1] for at in episodes.hardware), "episodes.hardware: factors above zero")
        _require(1 <= ppo.fleets <= 64 and ppo.steps >= 0, "ppo: 1 to 64 fleets, steps not negative")
        _require(ppo.steps_per_slot >= 2 and ppo.batch >= 2 and ppo.epochs >= 1, "ppo: steps_per_slot, batch and epochs are too small")
        _require(0.0 < ppo.gamma <= 1.0 and 0.0 < ppo.gae_lambda <= 1.0, "ppo: gamma and gae_lambda lie in (0, 1]")
        _require(0.0 < ppo.learning_rate < 1.0 and 0.0 < ppo.clip_range < 1.0, "ppo: learning_rate and clip_range lie in (0, 1)")
        _require(0 < ppo.validation_streams <= 1_000, "ppo.validation_streams: must be 1 to 1,000")
        _require(0.0 <= ppo.critic_share < 1.0, "ppo.critic_share: must lie in [0, 1)")
        _require(self.imitation.rule in ("clairvoyant", "b5", "b7"), "imitation.rule: clairvoyant, b5 or b7")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Features in the order of the network's inputs."""
        return PAPER if self.features == "paper" else HELM

    @property
    def period_ns(self) -> int:
        """Between two decisions."""
        return round(self.action.period_seconds * 1e9)

    @property
    def decisions(self) -> int:
        """Of one node in one episode."""
        return int((self.episodes.seconds - self.episodes.hold_seconds) / self.action.period_seconds)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def load_config(name_or_path: str) -> TrainingConfig:
    """A shipped configuration by name, or a file by its path; `ValueError` or `OSError` says what is wrong."""
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return decode_config(_read(Path(name_or_path)), name_or_path)
    if name_or_path not in known_configs():
        raise ValueError(f"config: unknown {name_or_path!r}, choose one of {', '.join(known_configs())} or a .toml file")
    return decode_config(resources.files("agents.learning.configs").joinpath(f"{name_or_path}.toml").read_text("utf-8"), name_or_path)


def known_configs() -> list[str]:
    """Names of the shipped configurations."""
    folder = resources.files("agents.learning.configs")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _read(path: Path) -> str:
    if path.stat().st_size > CONFIG_BYTES_MAX:
        raise ValueError(f"{path}: over {CONFIG_BYTES_MAX} bytes are no configuration")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None


def decode_config(text: str, origin: str) -> TrainingConfig:
    """TOML to a checked configuration; `ValueError` names `origin` and the field."""
    try:
        return msgspec.convert(tomllib.loads(text), TrainingConfig)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"{origin}: {error}") from None
