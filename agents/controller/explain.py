"""One decision in words, from its record: who wanted what, what limited it, what the shadow would have done, and why."""

from collections.abc import Mapping
from typing import Any

from agents.controller.recovery import Phase

_SHARES_SHOWN = 5
_ROUNDING = 1e-9
_SEEN = {
    "latency_ms_p99": ("P99", "{:.1f} ms"),
    "slo_ms": ("SLO", "{:.0f} ms"),
    "utilisation": ("utilisation", "{:.2f}"),
    "requests_per_second_fast": ("arrivals now", "{:.1f}/s"),
    "requests_per_second_slow": ("last minute", "{:.1f}/s"),
    "emb_hit_ratio": ("EMB hits", "{:.2f}"),
    "kv_hit_ratio": ("KV hits", "{:.2f}"),
}
_GUARD = {
    "held_by_operator": "an operator's override or pin is in force",
    "held_ratio_refused": "the held ratio is no share of the pool",
    "released": "an operator released the node: back to where automatic control was",
    "no_proposal": "the controller is advisory or off, so it is not heard",
    "proposal_not_finite": "the proposal was not a number: the last good target stays",
    "no_data_decay": "no request for minutes: towards the safe split",
    "no_data_hold": "no request lately: hold",
    "reuse_stale": "the cluster's reuse statistics are stale: hold",
    "floor": "raised to the floor",
    "ceiling": "lowered to the ceiling",
    "rails_changed": "the target lay outside the guard rails",
    "dead_band": "too small a change to be worth a move",
    "dwell": "the last change is too recent",
    "largest_step": "cut to the largest step",
    "refill_budget": "cut to what the refill budget can fill",
}


def explain(record: Mapping[str, Any]) -> list[str]:
    """Lines of text. `record` has the fields of a `DecisionRecord`; what an older node did not send is left out."""
    before, granted = record["emb_ratio_before"], record["emb_ratio_granted"]
    move = f"EMB {before:.3f}, target {granted:.3f}"
    return [
        f"{record['name']}, decision {record['seq']} of {record['controller']} ({record['mode']}): {move}",
        *_layers(record),
        *(f"  guard     {_GUARD.get(reason, reason)}" for reason in record["guard_reasons"]),
        *_shadow(record),
        *_shares(record.get("feature_shares") or {}),
        *_seen(record["features"]),
    ]


def _layers(record: Mapping[str, Any]) -> list[str]:
    """Each layer's part; a method without layers has one line."""
    layers, proposed = record["layers"], record["emb_ratio_proposed"]
    if not {"base", "residual", "recovery"} <= set(layers):
        return [f"  proposed  {proposed:.3f}, because: {_words(record['reason'])}"]
    learning = "it does not learn now" if layers.get("frozen") else "learning"
    phase = Phase(int(layers.get("phase", 0))).name.lower()
    taken_over = phase == "surge" and abs(layers["recovery"]) > _ROUNDING
    recovery = f"{phase}: safe split {proposed:.3f} instead" if taken_over else phase
    return [
        f"  base      wants {layers['base']:.3f} ({_words(record['reason'])})",
        f"  residual  {layers['residual']:+.3f} ({learning})",
        f"  recovery  {recovery}",
        f"  proposed  {proposed:.3f}",
    ]


def _shadow(record: Mapping[str, Any]) -> list[str]:
    if record.get("shadow_emb_ratio") is None:
        return []
    regret = record.get("regret_ms", 0.0)
    return [f"  shadow    the best rule would go to {record['shadow_emb_ratio']:.3f}; following it would have saved {regret:.0f} ms so far"]


def _shares(shares: Mapping[str, float]) -> list[str]:
    if not shares:
        return []
    largest = sorted(shares.items(), key=lambda item: (-abs(item[1]), item[0]))[:_SHARES_SHOWN]
    named = ", ".join(f"{name} {share:+.4f}" for name, share in largest)
    return [f"  features  gradient x (input - mean): {named}"]


def _seen(features: Mapping[str, float]) -> list[str]:
    known = [f"{name} {form.format(features[key])}" for key, (name, form) in _SEEN.items() if key in features]
    return [f"  seen      {', '.join(known)}"] if known else []


def _words(reason: str) -> str:
    return reason.replace("_", " ")
