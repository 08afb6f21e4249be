"""Advice as one standalone page: the plots, and the same words as in the terminal."""

import html

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from agents.sim.advise import Advice

_EMB, _KV, _OTHER, _LIMIT = "#b45309", "#6d28d9", "#0e7490", "#b91c1c"
_PANELS = ("What a cache of each size saves", "Cost of each static split", "Best split over time", "P99 by size of the pool")


def page(advice: Advice, words: list[str]) -> str:
    """HTML that needs nothing from the network."""
    panels = make_subplots(rows=2, cols=2, subplot_titles=_PANELS, vertical_spacing=0.16, horizontal_spacing=0.1)
    _curves(panels, advice)
    _splits(panels, advice)
    _schedule(panels, advice)
    _pools(panels, advice)
    panels.update_layout(height=760, template="none", legend={"orientation": "h", "y": -0.08}, margin={"l": 64, "r": 24, "t": 48, "b": 48})
    plot = panels.to_html(full_html=False, include_plotlyjs=True)
    title = html.escape(f"HELM advice: {advice.trace} on {advice.profile}")
    style = "body{font:15px system-ui;max-width:1200px;margin:24px auto;padding:0 16px}pre{background:#f4f4f5;padding:16px;overflow:auto}"
    text = html.escape("\n".join(words))
    return f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{style}</style><h1>{title}</h1><pre>{text}</pre>{plot}\n'


def _curves(panels: go.Figure, advice: Advice) -> None:
    curves = advice.curves
    for name, values, colour in (("EMB", curves.emb_ms_per_second, _EMB), ("KV", curves.kv_ms_per_second, _KV)):
        panels.add_trace(go.Scatter(x=curves.capacity_gb, y=values, name=f"saved by {name}", line={"color": colour}), row=1, col=1)
    panels.update_xaxes(title_text="GB of cache on a node", row=1, col=1)
    panels.update_yaxes(title_text="ms of work saved per second", row=1, col=1)


def _splits(panels: go.Figure, advice: Advice) -> None:
    ratios = [point.emb_ratio for point in advice.splits]
    p99 = [point.latency_ms_p99 for point in advice.splits]
    mean = [point.service_ms_mean for point in advice.splits]
    panels.add_trace(go.Scatter(x=ratios, y=p99, name="P99 latency", line={"color": _OTHER}), row=1, col=2)
    panels.add_trace(go.Scatter(x=ratios, y=mean, name="mean service", line={"color": _OTHER, "dash": "dot"}), row=1, col=2)
    panels.add_hline(y=advice.slo_ms, line_dash="dot", line_color=_LIMIT, annotation_text="SLO", row=1, col=2)
    panels.add_vrect(x0=advice.emb_ratio_low, x1=advice.emb_ratio_high, fillcolor=_OTHER, opacity=0.12, line_width=0, row=1, col=2)
    panels.update_xaxes(title_text="EMB share of the pool", row=1, col=2)
    panels.update_yaxes(title_text="ms", type="log", row=1, col=2)


def _schedule(panels: go.Figure, advice: Advice) -> None:
    adapting = advice.adapting
    line = {"color": _OTHER, "shape": "hv"}
    panels.add_trace(go.Scatter(x=adapting.at_seconds, y=adapting.emb_ratio, name="clairvoyant split", line=line), row=2, col=1)
    panels.add_hline(y=advice.emb_ratio, line_dash="dot", line_color="#52525b", annotation_text="best static", row=2, col=1)
    panels.update_xaxes(title_text="stream seconds", row=2, col=1)
    panels.update_yaxes(title_text="EMB share of the pool", range=[0, 1], row=2, col=1)


def _pools(panels: go.Figure, advice: Advice) -> None:
    sizes = [point.pool_gb for point in advice.pools]
    p99 = [point.latency_ms_p99 for point in advice.pools]
    panels.add_trace(go.Scatter(x=sizes, y=p99, name="P99 at the best split", mode="lines+markers", line={"color": _OTHER}), row=2, col=2)
    panels.add_hline(y=advice.slo_ms, line_dash="dot", line_color=_LIMIT, annotation_text="SLO", row=2, col=2)
    panels.update_xaxes(title_text="GB of pool on a node", row=2, col=2)
    panels.update_yaxes(title_text="ms", type="log", row=2, col=2)
