"""`helmctl calibrate`: measure this machine and write a profile with what a request costs here."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.state import find_state_folder

if TYPE_CHECKING:
    from agents.profiles import Calibration, CostConstants, DeviceName, Profile
    from agents.runtime.cost_fit import Fit
    from agents.runtime.device.executor import TorchExecutor

DEFAULT_PROFILES: "dict[DeviceName, str]" = {"cpu": "cpu-demo", "cuda": "gpu-demo"}


def calibrate(
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    profile: Annotated[str | None, typer.Option(help="Profile to start from. Default: the demo of the device.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the measured profile to this .toml file.")] = None,
    runs: Annotated[int, typer.Option(min=1, max=1000, help="Repetitions of each request; the median counts.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Fit the cost model (link, gather, candidates, prefill, delta) to this machine, with the error of each term."""
    from agents.profiles import load_profile
    from agents.runtime.calibrate import measure
    from agents.runtime.cost_fit import fit_cost

    chosen = _device(device)
    _check(out)
    try:
        base = load_profile(profile or DEFAULT_PROFILES[chosen])
        executor = _executor(chosen, base)
        fitted = fit_cost(measure(executor, base, runs, _say))
    except (ValueError, OSError) as error:
        raise Refusal(str(error)) from error
    measured = calibrated(base, executor, fitted, base.name if out is None else out.stem)
    if out is not None:
        _write(out, measured)
    sys.stdout.write(_as_json(measured) if as_json else in_words(base, measured))


def _device(named: str) -> "DeviceName":
    for device in DEFAULT_PROFILES:
        if device == named:
            return device
    raise Refusal(f"--device {named}: choose {' or '.join(DEFAULT_PROFILES)}")


def _check(out: Path | None) -> None:
    if out is not None and out.suffix != ".toml":
        raise Refusal(f"--out {out}: a profile is named by its path, so its file ends in .toml")
    if out is not None and not out.parent.is_dir():
        raise Refusal(f"--out {out}: there is no folder {out.parent}")


def _executor(device: "DeviceName", base: "Profile") -> "TorchExecutor":
    from agents.runtime.device.base import DeviceOutOfMemory
    from agents.runtime.device.make import make_executor, refuse_what_cannot_run
    from agents.runtime.versions import demo_version

    refuse_what_cannot_run(device, base)
    loaded = demo_version(find_state_folder().root / "tables", base)
    try:
        return make_executor(device, base, loaded.weights, loaded.table)
    except DeviceOutOfMemory as error:
        raise ValueError(str(error)) from error


def calibrated(base: "Profile", executor: "TorchExecutor", fitted: "Fit", name: str) -> "Profile":
    """The base with measured constants, and where they come from. An emulated link keeps its setting: it was not measured."""
    from agents.profiles import CostConstants

    rounded = {field: float(f"{value:.4g}") for field, value in fitted.cost._asdict().items()}
    per_row_ms = rounded["ms_per_missing_row"]
    link = base.link_bytes_per_second if executor.emulated or per_row_ms == 0 else round(base.row_bytes / per_row_ms * 1e3)
    return msgspec.structs.replace(
        base,
        name=name,
        description=f"{base.description}; costs measured on {platform.node()}",
        device=executor.name,
        link_bytes_per_second=float(link),
        cost=CostConstants(**rounded),
        calibration=_provenance(base, executor, fitted),
    )


def _provenance(base: "Profile", executor: "TorchExecutor", fitted: "Fit") -> "Calibration":
    import torch

    from agents.profiles import Calibration
    from helmctl.bench.report import processor_name

    return Calibration(
        base=base.kind,
        device=executor.name,
        emulated=executor.emulated,
        host=platform.node(),
        processor=torch.cuda.get_device_name() if executor.name == "cuda" else processor_name(),
        at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        versions={"helm": version("helm"), "torch": str(torch.__version__), "python": platform.python_version()},
        terms=fitted.terms,
    )


def _write(out: Path, measured: "Profile") -> None:
    from agents.profiles.text import profile_text

    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.write_text(profile_text(measured, "Written by `helmctl calibrate`: [cost] was measured, the rest is that of the base."))
        partial.replace(out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise Refusal(f"--out {out}: {error.strerror}") from error


def _as_json(measured: "Profile") -> str:
    found = msgspec.to_builtins({"profile": measured.name, "cost": measured.cost, "calibration": measured.calibration})
    return json.dumps(found) + "\n"


def in_words(base: "Profile", measured: "Profile") -> str:
    """Constants before and after, and the error of each term."""
    found = measured.calibration
    assert found is not None
    emulated = ", emulated link" if found.emulated else ""
    lines = [
        f"{found.base} on {found.processor} ({found.device}{emulated}), {found.at}",
        "",
        f"{'constant':<24}{'base':>12}{'measured':>12}",
    ]
    lines += [f"{name:<24}{was:>12.4g}{now:>12.4g}" for name, was, now in _pairs(base.cost, measured.cost)]
    lines += ["", f"{'term':<12}{'samples':>8}{'R^2':>9}{'residual ms, median':>21}{'max':>9}"]
    lines += [
        f"{one.term:<12}{one.samples:>8}{one.r_squared:>9.4f}{one.residual_ms_median:>21.4f}{one.residual_ms_max:>9.4f}  {one.formula}"
        for one in found.terms
    ]
    return "\n".join(lines) + "\n"


def _pairs(was: "CostConstants", now: "CostConstants") -> list[tuple[str, float, float]]:
    return [(name, getattr(was, name), getattr(now, name)) for name in now.__struct_fields__]


def _say(line: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{line}")
