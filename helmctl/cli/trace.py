"""`helmctl trace`: bring a log of yours into the one format that everything replays, and say what it is like."""

import json
import math
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer

from agents.profiles import load_profile
from agents.workloads.log_statistics import LogFacts, facts_of, matches, regime_of
from agents.workloads.replay import HISTORY_RULES, ReplayRules, import_trace
from agents.workloads.trace import Columns, Log, read_log
from agents.workloads.trace_file import read_header, read_table, table_as_log

app = typer.Typer(no_args_is_help=True, help="Import and describe logs of user, item and time.")

UserOption = Annotated[str, typer.Option("--user", help="column of the user's id")]
ItemOption = Annotated[str, typer.Option("--item", help="column of the item's id")]
TsOption = Annotated[str, typer.Option("--ts", help="column of the time: a number, a timestamp or an ISO date")]
UnitOption = Annotated[str, typer.Option("--ts-unit", help="auto, s, ms, us or ns")]
ValueOption = Annotated[list[str], typer.Option("--value", help="COLUMN=VALUE: only rows with this value; may be repeated")]
SortOption = Annotated[bool, typer.Option("--sort", help="put rows in order of time instead of refusing them")]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object on standard output")]


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="Parquet, CSV or NPZ")],
    user: UserOption = "user",
    item: ItemOption = "item",
    ts: TsOption = "ts",
    ts_unit: UnitOption = "auto",
    value: ValueOption = [],  # noqa: B006  typer copies it
    out: Annotated[Path | None, typer.Option(help="the trace to write; FILE.trace.parquet if not given")] = None,
    profile: Annotated[str, typer.Option(help="whose table the items are mapped to")] = "a100-80g",
    history_rule: Annotated[str, typer.Option(help=f"how short histories are lengthened: {', '.join(HISTORY_RULES)}")] = "popular",
    items: Annotated[str, typer.Option(help="items to rows: auto, dense or hash")] = "auto",
    seed: Annotated[int, typer.Option(help="of what is spread inside a coarse clock's steps")] = 1,
    sort: SortOption = False,
    as_json: JsonOption = False,
) -> None:
    """Rewrite a log as a trace; bad rows are counted and named by their line, and more than 1 % of them stop the import."""
    target = out or file.with_name(f"{file.stem}.trace.parquet")
    try:
        if target.resolve() == file.resolve():
            raise ValueError(f"out: {target} is the file that is read")
        sizes = ReplayRules.for_profile(load_profile(profile))
        rules = msgspec.structs.replace(sizes, history=history_rule, items=items)
        notes = import_trace(file, target, rules, seed, columns_of(user, item, ts, ts_unit, value), sort=sort)
    except (ValueError, OSError) as error:
        refuse("import", error)
    typer.echo(json.dumps({"trace": str(target), "notes": notes}) if as_json else "\n".join(notes))


@app.command("describe")
def describe_command(
    file: Annotated[Path, typer.Argument(help="Parquet, CSV or NPZ, or a trace of ours")],
    user: UserOption = "user",
    item: ItemOption = "item",
    ts: TsOption = "ts",
    ts_unit: UnitOption = "auto",
    value: ValueOption = [],  # noqa: B006  typer copies it
    sort: SortOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print skew, revisits and bursts of a log, and the generator that is nearest to it."""
    try:
        log = _log_of(file, columns_of(user, item, ts, ts_unit, value), sort)
    except (ValueError, OSError) as error:
        refuse("describe", error)
    facts = facts_of(log)
    nearest, regime = matches(facts), regime_of(facts)
    if as_json:
        plain = {name: _json_number(number) for name, number in msgspec.structs.asdict(facts).items()}
        found = {"facts": plain, "generators": [match._asdict() for match in nearest], "regime": regime, "notes": log.notes}
        typer.echo(json.dumps(found))
        return
    typer.echo("\n".join([*log.notes, *_in_words(facts), ""]))
    typer.echo(f"nearest generator        {nearest[0].generator}, regime {regime}")
    typer.echo("distances                " + ", ".join(f"{match.generator} {match.distance:.2f}" for match in nearest))


def columns_of(user: str, item: str, ts: str, ts_unit: str, values: list[str]) -> Columns:
    """Columns as options name them; `ValueError` if a value is no COLUMN=VALUE."""
    only = [tuple(value.split("=", 1)) for value in values]
    if any(len(pair) != 2 for pair in only):
        raise ValueError("value: must be COLUMN=VALUE")
    return Columns(user, item, ts, ts_unit, tuple((name, wanted) for name, wanted in only))


def refuse(command: str, error: Exception) -> NoReturn:
    """One line, exit code 2."""
    typer.echo(f"helmctl trace {command}: {error}", err=True)
    raise typer.Exit(2) from error


def _log_of(file: Path, columns: Columns, sort: bool) -> Log:
    header = read_header(file)
    if header is None:
        return read_log(file, columns, sort=sort)
    return table_as_log(read_table(file), [f"trace of {header.source}: {header.items_mapping}"])


def _in_words(facts: LogFacts) -> list[str]:
    rows = [
        ("users, items, events", f"{facts.users:,}, {facts.items:,}, {facts.events:,} in {facts.span_seconds / 86_400:.1f} days"),
        ("events per user", f"p50 {facts.events_per_user_p50:.0f}, p90 {facts.events_per_user_p90:.0f}"),
        ("", f"LN({facts.events_per_user_ln_mu:.2f}, {facts.events_per_user_ln_sigma:.2f})"),
        ("item skew", f"Zipf-Mandelbrot a {facts.item_exponent:.2f}, q {facts.item_shift:.0f} (shares within {facts.item_fit_error:.3f})"),
        ("", f"top 1 % {facts.item_top_1pct_ratio:.1%}, top 10 % {facts.item_top_10pct_ratio:.1%} of events"),
        ("", f"seen once {facts.items_seen_once_ratio:.1%} of items"),
        ("user skew", f"top 1 % {facts.user_top_1pct_ratio:.1%}, top 10 % {facts.user_top_10pct_ratio:.1%} of events"),
        ("clock", f"steps of {facts.clock_seconds:g} s"),
        ("gaps inside a visit", f"LN({facts.gap_ln_mu:.2f}, {facts.gap_ln_sigma:.2f}), {facts.in_visit_ratio:.0%} of gaps"),
        ("", f"{facts.events_per_visit:.1f} events a visit"),
        ("revisits", f"LN({facts.revisit_ln_mu:.2f}, {facts.revisit_ln_sigma:.2f}), median {facts.revisit_hours_p50:.1f} h"),
        ("", f"{facts.returned_next_day_ratio:.2f} came again the next day"),
        ("hour of day", f"peak {facts.hour_peak_ratio:.2f}, trough {facts.hour_trough_ratio:.2f} times the mean"),
        (
            "bursts",
            f"per {facts.window_seconds:.0f} s: Fano factor {facts.window_fano:.1f}, busiest 1 % {facts.burst_peak_ratio:.1f} x median",
        ),
        ("drift", f"top items of both halves overlap by {facts.hot_set_jaccard:.2f} (Jaccard)"),
    ]
    return [f"{name:24} {text.replace('nan%', '-').replace('nan', '-')}" for name, text in rows]


def _json_number(value: float) -> float | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
