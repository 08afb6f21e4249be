"""An evaluation as one page that needs nothing else: tables, latency curves, ratios against the optimum."""

import html
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #dde2ea}"
    "td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}.over{color:#a33}h2{margin-top:2.5rem}"
)
_COLUMNS = (
    ("method", "method"),
    ("router", "router"),
    ("latency_ms_p99", "P99 ms"),
    ("latency_ms_p50", "P50 ms"),
    ("latency_ms_mean", "mean ms"),
    ("slo_ratio", "within SLO"),
    ("utilisation", "utilisation"),
    ("emb_hit_ratio", "EMB hits"),
    ("kv_hit_ratio", "KV hits"),
    ("p99_vs_s1", "P99 vs S1"),
    ("p99_vs_s0", "P99 vs S0"),
    ("p99_vs_hash", "P99 vs hashing"),
    ("gap_closed", "of S1-S3 gap"),
    ("distance", "distance"),
    ("distance_outside_plateau", "outside plateau"),
    ("moves", "moves"),
)


def page(found: dict[str, Any]) -> str:
    """The whole page; plotly's script is inside it."""
    parts = [f"<h1>Evaluation: {html.escape(found['suite'])}</h1>", f"<p>{html.escape(_about(found))}</p>"]
    script = True
    for name, rows in _groups(found["cells"]).items():
        parts.append(f"<h2>{html.escape(' · '.join(name))}</h2>")
        parts.append(_table(rows))
        curves = [curve for curve in found["curves"] if _key(curve) == name]
        if curves:
            parts.append(_figure(curves).to_html(full_html=False, include_plotlyjs=script))
            script = False
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>HELM evaluation</title><style>{_STYLE}</style>{''.join(parts)}</html>"
    )


def _about(found: dict[str, Any]) -> str:
    size = "a quick look: fewer cells, methods and seeds than the suite" if found["quick"] else "the whole suite"
    return f"{found['seeds']} seeds, {size}. Percentages are left out where either side was overloaded: they would mean nothing."


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["profile"], row["regime"], row["load"], row["admission"]


def _groups(rows: list[dict[str, Any]]) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_key(row), []).append(row)
    return groups


def _table(rows: list[dict[str, Any]]) -> str:
    columns = [(name, title) for name, title in _COLUMNS if any(row.get(name) is not None for row in rows)]
    head = "".join(f"<th>{html.escape(title)}</th>" for _, title in columns)
    body = ""
    for row in sorted(rows, key=lambda row: row["latency_ms_p99"] or float("inf")):
        cells = "".join(f"<td>{html.escape(_text(row.get(name)))}</td>" for name, _ in columns)
        body += f"<tr class='{'over' if row['overloaded'] else ''}'>{cells}{'<td>overloaded</td>' if row['overloaded'] else ''}</tr>"
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        between = "" if value["ci"] is None else f" ({value['ci'][0]:+.1%} to {value['ci'][1]:+.1%})"
        return f"{value['mean']:+.1%}{between}"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    return "" if value is None else str(value)


def _figure(curves: list[dict[str, Any]]) -> go.Figure:
    figure = make_subplots(1, 2, subplot_titles=("Share of requests slower than", "EMB share over time, mean of the nodes"))
    for curve in curves:
        name = curve["method"]
        if "latency_ms" in curve:
            slower = [1.0 - quantile for quantile in curve["quantiles"]]
            figure.add_trace(go.Scatter(x=curve["latency_ms"], y=slower, name=name, legendgroup=name), 1, 1)
        style = {"dash": "dot", "color": "black"} if name == "optimum" else {}
        seconds = [curve.get("first_second", 0) + second for second in range(len(curve["emb_ratio"]))]
        trace = go.Scatter(x=seconds, y=curve["emb_ratio"], name=name, legendgroup=name, showlegend=name == "optimum", line=style)
        figure.add_trace(trace, 1, 2)
    figure.update_xaxes(title="milliseconds", type="log", row=1, col=1)
    figure.update_yaxes(type="log", row=1, col=1)
    figure.update_xaxes(title="seconds", row=1, col=2)
    figure.update_layout(height=420, template="plotly_white", margin={"t": 40, "l": 50, "r": 10, "b": 40})
    return figure
