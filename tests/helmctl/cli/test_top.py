"""What `helmctl top` draws for known, late and unknown nodes."""

import io
from typing import Any

from rich.console import Console

from helmctl.cli.top import load_line, node_cells, number, screen, split_bar, summary
from helmctl.supervisor.view import node_row


def known(**changes: Any) -> dict[str, Any]:
    figures = {
        "phase": "ready",
        "mode": "auto",
        "emb_ratio": 0.25,
        "target_emb_ratio": 0.3,
        "emb_hit_ratio": 0.81,
        "kv_hit_ratio": None,
        "latency_ms_p50": 20.0,
        "latency_ms_p99": 90.04,
        "slo_ms": 120.0,
        "requests_per_second": 12.5,
        "queue_depth": 3,
        "moves_total": 7,
    }
    return node_row("node-0", {**figures, **changes})


def drawn(view: dict[str, Any], load: dict[str, Any] | None = None, cpu: float = 50.0) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(screen(view, load, cpu))
    return console.export_text()


def test_a_node_is_one_row_of_its_figures() -> None:
    assert [cell.plain for cell in node_cells(known())] == [
        *("node-0", "ready", "auto", "█" * 20, "0.250", "0.300", "0.81", "-", "20.0", "90.0", "12.5", "3", "7")
    ]


def test_an_offline_node_is_dashes_beside_its_name() -> None:
    cells = [cell.plain for cell in node_cells(node_row("node-1", None))]
    assert cells[:3] == ["node-1", "offline", "-"]
    assert cells[4:] == ["-"] * 9


def test_the_bar_gives_each_cache_its_share_of_cells() -> None:
    spans = [(span.end - span.start, span.style) for span in split_bar(0.25).spans]
    assert spans == [(15, "magenta")]
    assert split_bar(0.25).style == "cyan"
    assert len(split_bar(0.25)) == 20


def test_a_p99_above_the_slo_is_red() -> None:
    assert node_cells(known())[9].style == ""
    assert node_cells(known(latency_ms_p99=121.0))[9].style == "red"


def test_the_summary_counts_ready_nodes_and_adds_their_rates() -> None:
    router = {"phase": "ready", "latency_ms_p50": 21.0, "latency_ms_p99": None}
    view = {"nodes": [known(), known(), node_row("node-2", None)], "router": router}
    assert summary(view, 42.0) == "HELM  2/3 nodes ready  25.0 req/s  router ready  P50 21.0 ms  P99 - ms  host CPU 42 %"


def test_a_saturated_host_is_said_aloud() -> None:
    view = {"nodes": [known()], "router": {"phase": "ready"}}
    assert "Host saturated" not in drawn(view)
    assert "Host saturated" in drawn(view, cpu=95.0)
    assert "Host saturated" in drawn(view, load={"saturated": True})


def test_the_load_generator_has_a_line_while_it_runs() -> None:
    load = {"workload": "demo", "requests_per_second": 24.0, "requests_total": 100, "failures_total": 1, "pace": 0.75}
    assert load_line(load) == "load demo  24.0 req/s sent  100 requests  1 failed  pace 0.75"


def test_an_unknown_figure_is_a_dash() -> None:
    assert (number(None), number(1.26), number(0.5, 3)) == ("-", "1.3", "0.500")
