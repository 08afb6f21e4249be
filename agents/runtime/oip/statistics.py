"""The statistics extension: counts and summed nanoseconds of a model since the server's start.

Names and meaning follow the public description of the extension. A request's `compute_input` is the gather
of its batch's rows and prefixes, `compute_infer` its own share of the model, `compute_output` the rest of the
batch it waited for.
"""

from typing import Any

from agents.runtime.oip.metadata import MODEL_NAME

_STAGES = ("compute_input", "compute_infer", "compute_output")


class _Sum:
    """How often, and how long together."""

    def __init__(self) -> None:
        self.count = 0
        self.ns = 0

    def add(self, milliseconds: float) -> None:
        self.count += 1
        self.ns += round(milliseconds * 1e6)

    def body(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


class ModelStatistics:
    """Counters of the one model a node serves."""

    def __init__(self) -> None:
        self._last_unix_ms = 0
        self._inferences = {name: _Sum() for name in ("success", "fail", "queue", *_STAGES, "cache_hit", "cache_miss")}
        self._batches: dict[int, dict[str, _Sum]] = {}

    def answered(self, unix_ns: int, queue_ms: float, input_ms: float, infer_ms: float, service_ms: float) -> None:
        """A request was answered; `service_ms` is its batch's whole time on the device."""
        self._last_unix_ms = unix_ns // 1_000_000
        self._inferences["success"].add(queue_ms + service_ms)
        self._inferences["queue"].add(queue_ms)
        for name, milliseconds in zip(_STAGES, _stages(input_ms, infer_ms, service_ms), strict=True):
            self._inferences[name].add(milliseconds)

    def failed(self, milliseconds: float) -> None:
        """A request that had been understood was refused or failed after that time."""
        self._inferences["fail"].add(milliseconds)

    def executed(self, size: int, input_ms: float, infer_ms: float, service_ms: float) -> None:
        """The device ran a batch of `size` requests. Sizes are few: the profile bounds them."""
        sums = self._batches.setdefault(size, {name: _Sum() for name in _STAGES})
        for name, milliseconds in zip(_STAGES, _stages(input_ms, infer_ms, service_ms), strict=True):
            sums[name].add(milliseconds)

    def body(self, model_version: str) -> dict[str, Any]:
        """Body of `GET /v2/models/{name}/stats`."""
        statistics = {
            "name": MODEL_NAME,
            "version": model_version,
            "last_inference": self._last_unix_ms,
            "inference_count": self._inferences["success"].count,
            "execution_count": sum(sums[_STAGES[0]].count for sums in self._batches.values()),
            "inference_stats": {name: total.body() for name, total in self._inferences.items()},
            "batch_stats": [
                {"batch_size": size, **{name: total.body() for name, total in sums.items()}} for size, sums in sorted(self._batches.items())
            ],
        }
        return {"model_stats": [statistics]}


def _stages(input_ms: float, infer_ms: float, service_ms: float) -> tuple[float, float, float]:
    return input_ms, infer_ms, max(0.0, service_ms - input_ms - infer_ms)
