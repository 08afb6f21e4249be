"""`helmctl advise`: what HELM would bring on a log of yours. No fleet is needed."""

import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from agents.profiles import load_profile
from agents.sim.advise import Advice
from agents.sim.advise import advise as advise_on
from agents.workloads.replay import ReplayRules
from agents.workloads.trace_blocks import open_blocks
from helmctl.cli.trace import ItemOption, JsonOption, SortOption, TsOption, UnitOption, UserOption, ValueOption, columns_of


def advise(
    trace: Annotated[Path, typer.Option(help="the log: Parquet, CSV or NPZ, or a trace of ours")],
    profile: Annotated[str, typer.Option(help="hardware and model profile")] = "a100-80g",
    slo_ms: Annotated[float | None, typer.Option("--slo-ms", help="P99 to meet; the profile's if not given")] = None,
    rate: Annotated[float | None, typer.Option(help="requests/s of the fleet: the log's time is compressed or stretched to it")] = None,
    rows_per_item: Annotated[int | None, typer.Option(help="table rows an item owns: its own and its features'")] = None,
    history_rule: Annotated[str, typer.Option(help="how short histories are lengthened: popular, own or short")] = "popular",
    user: UserOption = "user",
    item: ItemOption = "item",
    ts: TsOption = "ts",
    ts_unit: UnitOption = "auto",
    value: ValueOption = [],  # noqa: B006  typer copies it
    sort: SortOption = False,
    seed: Annotated[int, typer.Option(help="of what is drawn where the log is silent")] = 1,
    html: Annotated[Path | None, typer.Option(help="write a page with the curves")] = None,
    as_json: JsonOption = False,
) -> None:
    """Value curves, the best static split, whether adapting pays, and memory and nodes for an SLO."""
    began = time.monotonic()

    def say(line: str) -> None:
        if not as_json:
            typer.echo(f"  {line}", err=True)

    try:
        chosen = load_profile(profile)
        limit_ms = chosen.slo_ms if slo_ms is None else slo_ms
        if not 0 < limit_ms < 1e6:
            raise ValueError("slo-ms: must be above zero")
        rules = msgspec.structs.replace(ReplayRules.for_profile(chosen), history=history_rule)
        columns = columns_of(user, item, ts, ts_unit, value)
        log, notes = open_blocks(
            trace, chosen, rules, seed=seed, rate_per_second=rate, rows_per_item=rows_per_item, columns=columns, sort=sort
        )
        found = advise_on(log, chosen, limit_ms, notes, say)
    except (ValueError, OSError) as error:
        typer.echo(f"helmctl advise: {error}", err=True)
        raise typer.Exit(2) from error
    if html is not None:
        from helmctl.cli.advise_page import page  # plotly is not needed for the terminal, and not installed with an agent

        html.write_text(page(found, in_words(found)), "utf-8")
    typer.echo(msgspec.json.encode(found).decode() if as_json else "\n".join(in_words(found)))
    say(f"took {time.monotonic() - began:.0f} s")


def in_words(advice: Advice) -> list[str]:
    """The answer for a terminal."""
    adapting, p99 = advice.adapting, advice.latency_ms_p99
    best = min(advice.splits, key=lambda point: abs(point.emb_ratio - advice.emb_ratio))
    if advice.nodes is None:
        nodes = f"none: {advice.nodes_reason}"
    else:
        nodes = f"{advice.nodes} ({advice.nodes_low} to {advice.nodes_high}) of {advice.profile} for P99 <= {advice.slo_ms:g} ms"
    needed = (
        "none of the sizes tried" if advice.pool_gb_needed is None else f"{advice.pool_gb_needed:.3g} GB a node at that number of nodes"
    )
    return [
        *advice.notes,
        "",
        f"traffic        {advice.requests:,} requests, {advice.requests_per_second:.1f}/s",
        f"nodes          {nodes}",
        f"memory         {needed}",
        f"best split     EMB {advice.emb_ratio:.2f} ({advice.emb_ratio_low:.2f} to {advice.emb_ratio_high:.2f}): "
        f"P99 {p99.value:.1f} ms ({p99.low:.1f} to {p99.high:.1f}), utilisation {advice.utilisation:.2f}",
        f"               EMB hits {best.emb_hit_ratio:.0%}, KV hits {best.kv_hit_ratio:.0%}",
        f"adapting pays  {'yes' if adapting.pays else 'no'}: {adapting.reason}",
        "",
        "EMB share   service ms   P99 ms   EMB hits   KV hits",
        *(
            f"{at.emb_ratio:9.2f} {at.service_ms_mean:12.2f} {at.latency_ms_p99:8.1f} {at.emb_hit_ratio:10.0%} {at.kv_hit_ratio:9.0%}"
            for at in advice.splits[::2]
        ),
        "",
        "pool GB   best EMB   utilisation   P99 ms",
        *(f"{size.pool_gb:7.3g} {size.emb_ratio:10.2f} {size.utilisation:13.2f} {size.latency_ms_p99:8.1f}" for size in advice.pools),
        "",
        f"a whole pool would save {advice.curves.emb_share_at_pool:.0%} of what rows cost, "
        f"{advice.curves.kv_share_at_pool:.0%} of what prefixes cost",
    ]
