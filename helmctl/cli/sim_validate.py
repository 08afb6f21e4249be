"""`helmctl sim validate`: run a small live fleet, say of the same requests what the simulator says, and keep the difference."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from agents.profiles import load_profile
from agents.sim.scenario import Scenario
from agents.sim.validation.envelope import Validation, keep_validation
from agents.sim.validation.figures import P50_ERROR_AIM, P99_ERROR_AIM, Compared
from agents.sim.validation.run import LiveRun, Validated, validate
from agents.workloads.demo import REGIMES, DemoParameters, synthetic_workload
from helmctl.cli.figures import figure
from helmctl.supervisor.state import find_state_folder

PROFILE = "cpu-demo"
NODES_MAX = 16
SECONDS_MIN, SECONDS_MAX = 30.0, 900.0
RATE_PER_SECOND_MAX = 1_000.0
LATE_MS_MAX = 50.0  # the 99th percentile: beyond it another stream was sent
FIRST_PART_RATIO = 0.4  # of the traffic: caches fill, and the device is fitted


def validate_command(
    workload: Annotated[str, typer.Option(help=", ".join(REGIMES))] = "steady",
    seconds: Annotated[float, typer.Option(min=SECONDS_MIN, max=SECONDS_MAX, help="of traffic; the first two fifths only prepare")] = 90.0,
    rate: Annotated[float, typer.Option(min=1.0, max=RATE_PER_SECOND_MAX, help="requests per second of the fleet")] = 40.0,
    nodes: Annotated[int, typer.Option(min=1, max=NODES_MAX, help="live nodes")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="of the stream")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Predicted against measured P50, P99 and hit ratios per node. What-ifs show the result, and how far it reaches.

    Exit code 1, and nothing is kept, when the machine was too busy to tell.
    """
    from helmctl.bench.fleet import BenchError
    from helmctl.bench.recorded import record

    if workload not in REGIMES:
        _refuse(f"workload: unknown {workload!r}, choose one of {', '.join(REGIMES)}")
    scenario = Scenario(
        profile=PROFILE,
        workload=workload,
        nodes=nodes,
        seed=seed,
        duration_seconds=seconds,
        warmup_seconds=FIRST_PART_RATIO * seconds,
        rate_per_second=rate,
        settled=False,
    )
    stream = synthetic_workload(workload, seed, rate, True, DemoParameters.for_profile(load_profile(PROFILE)))
    try:
        run = record(stream, seconds, nodes, PROFILE, lambda line: typer.echo(line, err=True))
        found = validate(run, stream, scenario)
    except (BenchError, ValueError) as error:
        _refuse(str(error))
    kept = _kept(run, found, scenario)
    typer.echo(json.dumps(_plain(kept, found)) if as_json else _in_words(kept, found))
    if run.late_ms_p99 > LATE_MS_MAX:
        typer.echo(_saturated(run), err=True)
        raise typer.Exit(1)
    folder = find_state_folder()
    folder.prepare()
    keep_validation(folder.root, kept)


def _saturated(run: LiveRun) -> str:
    return (
        f"helmctl sim validate: not kept, the machine was saturated (CPU {run.host_cpu_ratio:.0%}, requests sent {run.late_ms_p99:.0f} ms "
        "late): its latencies are the machine's, not the fleet's"
    )


def _refuse(what: str) -> None:
    typer.echo(f"helmctl sim validate: {' '.join(what.split())}", err=True)
    raise typer.Exit(2)


def _kept(run: LiveRun, found: Validated, scenario: Scenario) -> Validation:
    fleet, counted = found.foretold, scenario.duration_seconds - scenario.warmup_seconds
    if fleet.latency_p50_error is None or fleet.latency_p99_error is None:
        raise typer.Exit(2)
    return Validation(
        at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        profile=scenario.profile,
        workload=scenario.workload,
        nodes=scenario.nodes,
        rate_per_node=fleet.measured.requests / counted / scenario.nodes,
        utilisation=found.utilisation,
        seconds=scenario.duration_seconds,
        requests=fleet.measured.requests,
        latency_p50_error=fleet.latency_p50_error,
        latency_p99_error=fleet.latency_p99_error,
        node_p50_error_max=_largest([node.latency_p50_error for node in found.replayed]),
        node_p99_error_max=_largest([node.latency_p99_error for node in found.replayed]),
        hit_ratio_error=fleet.hit_ratio_error or 0.0,
        host_cpu_ratio=run.host_cpu_ratio,
        **found.device._asdict(),
        **found.hop._asdict(),
    )


def _largest(errors: list[float | None]) -> float:
    return max((abs(error) for error in errors if error is not None), default=0.0)


def _plain(kept: Validation, found: Validated) -> dict[str, Any]:
    return {
        "at": kept.at,
        "profile": kept.profile,
        "workload": kept.workload,
        "parity": found.parity,
        "host_cpu_ratio": kept.host_cpu_ratio,
        "utilisation": kept.utilisation,
        "cost_factors": kept.cost_factors,
        "hop_ms": kept.hop_ms,
        "aim": {"latency_p50_error": P50_ERROR_AIM, "latency_p99_error": P99_ERROR_AIM},
        "nodes": [node.as_row() for node in found.replayed],
        "fleet": found.foretold.as_row(),
    }


_COLUMNS = ("", "requests", "P50 ms", "predicted", "error", "P99 ms", "predicted", "error", "EMB hits", "predicted", "KV hits", "predicted")


def _in_words(kept: Validation, found: Validated) -> str:
    """A row per node on the routes as they were, and the fleet as a what-if would have foretold it."""
    lines = [_COLUMNS, *(_cells(one) for one in (*found.replayed, found.foretold))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(map(str.rjust, line, widths)) for line in lines]
    decisions = "equal" if found.parity else "DIFFERENT"
    return "\n".join(
        [
            f"{kept.workload} at {kept.rate_per_node:.1f} requests/s a node, {kept.at}; host CPU {kept.host_cpu_ratio:.0%}; "
            f"decisions recomputed from the journals: {decisions}",
            *table,
            f"aims: P50 within {P50_ERROR_AIM:.0%}, P99 within {P99_ERROR_AIM:.0%}",
        ]
    )


def _cells(one: Compared) -> tuple[str, ...]:
    measured, predicted = one.measured, one.predicted
    return (
        one.name,
        str(measured.requests),
        figure(measured.latency_ms_p50, ".1f"),
        figure(predicted.latency_ms_p50, ".1f"),
        figure(one.latency_p50_error, "+.0%"),
        figure(measured.latency_ms_p99, ".1f"),
        figure(predicted.latency_ms_p99, ".1f"),
        figure(one.latency_p99_error, "+.0%"),
        figure(measured.emb_hit_ratio, ".3f"),
        figure(predicted.emb_hit_ratio, ".3f"),
        figure(measured.kv_hit_ratio, ".3f"),
        figure(predicted.kv_hit_ratio, ".3f"),
    )
