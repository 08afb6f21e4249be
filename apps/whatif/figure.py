"""The result as a plotly figure: latency, split and hit ratios of the three runs on one time axis."""

import json
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

# The console's categorical colours in order; the controller always has the accent.
_COLOURS = {"controller": "#0e7490"}
_STATIC_COLOURS = ("#b45309", "#6d28d9", "#15803d")
_PANELS = [
    ("latency_ms_p99", "P99 (ms)"),
    ("emb_ratio", "EMB share"),
    ("emb_hit_ratio", "EMB hit ratio"),
    ("kv_hit_ratio", "KV hit ratio"),
]


def figure(result: dict[str, Any]) -> dict[str, Any]:
    """Plotly JSON of a finished run."""
    panels = make_subplots(
        rows=len(_PANELS), cols=1, shared_xaxes=True, vertical_spacing=0.05, subplot_titles=[title for _, title in _PANELS]
    )
    for index, run in enumerate(result["runs"]):
        colour = _COLOURS.get(run["label"], _STATIC_COLOURS[index % len(_STATIC_COLOURS)])
        for row, (name, title) in enumerate(_PANELS, start=1):
            panels.add_trace(_line(run, name, title, colour, legend=row == 1), row=row, col=1)
    slo_ms = next((run["cell"].get("slo_ms") for run in result["runs"] if run["cell"].get("slo_ms")), None)
    if slo_ms:
        panels.add_hline(y=slo_ms, line_dash="dot", line_color="#b91c1c", annotation_text="SLO", row=1, col=1)
    panels.update_xaxes(title_text="simulated seconds", row=len(_PANELS), col=1)
    panels.update_layout(height=780, margin={"l": 56, "r": 16, "t": 48, "b": 48}, legend={"orientation": "h", "y": 1.06}, template="none")
    return dict(json.loads(panels.to_json()))


def _line(run: dict[str, Any], name: str, title: str, colour: str, *, legend: bool) -> go.Scatter:
    return go.Scatter(
        x=run["series"]["at_seconds"],
        y=run["series"][name],
        name=run["label"],
        legendgroup=run["label"],
        showlegend=legend,
        mode="lines",
        line={"color": colour, "width": 2},
        hovertemplate=f"{title}: %{{y:.3g}}<extra>{run['label']}</extra>",
    )
