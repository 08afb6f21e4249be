import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from agents.profiles import load_profile
from agents.runtime.load_main import build_control, build_workload, human, main, parser
from agents.wire.messages import FleetFile, NodeAddress

PROFILE = load_profile("cpu-demo")


def fleet_file(folder: Path, port: int = 9, profile: str = "cpu-demo") -> Path:
    here = NodeAddress(name="router", host="127.0.0.1", port=port)
    fleet = FleetFile(cluster_salt_hex="00", fleet_key="k", router=here, nodes=[], profile=profile)
    path = folder / "fleet.json"
    path.write_bytes(msgspec.json.encode(fleet))
    return path


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--workload", "nope"], "--workload"),
        (["--rate", "0"], "--rate"),
        (["--rate", "fast"], "--rate"),
        (["--duration", "nan"], "--duration"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "1.5"], "--seed"),
        (["--concurrency", "0"], "--concurrency"),
        (["--speed", "60"], "--speed"),
        (["--trace", "nowhere.parquet"], "no such file"),
        (["--trace", "log.txt"], "unknown kind of file"),
        (["--trace", "x.csv", "--workload", "demo"], "one of them"),
        (["--trace", "x.csv", "--columns", "a,b"], "--columns"),
        (["--rate-min", "50", "--rate-max", "20"], "--rate-min"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_an_option_that_cannot_be_followed_is_one_line_and_exit_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], names: str
) -> None:
    assert main(["--fleet", str(fleet_file(tmp_path)), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert names in captured.err


@pytest.mark.parametrize("content", [None, "", "[]", '{"router": 1}'])
def test_a_fleet_file_that_is_none_is_one_line_and_exit_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    path = tmp_path / "fleet.json"
    if content is not None:
        path.write_text(content)
    assert main(["--fleet", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_unknown_profile_is_exit_code_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--fleet", str(fleet_file(tmp_path, profile="toaster"))]) == 2
    assert "toaster" in capsys.readouterr().err


def test_a_router_that_is_not_there_is_exit_code_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--fleet", str(fleet_file(tmp_path)), "--wait", "0.2"]) == 1
    assert "not ready" in capsys.readouterr().err


def test_the_demo_is_the_default_and_loops() -> None:
    workload, notes = build_workload(parser().parse_args(["--fleet", "f"]), PROFILE)
    assert (workload.name, notes) == ("demo", [])
    assert workload.duration_seconds == float("inf")
    once, _ = build_workload(parser().parse_args(["--fleet", "f", "--once", "--workload", "burst"]), PROFILE)
    assert once.duration_seconds < 600


def test_a_workload_holds_its_rate_and_a_log_may_climb() -> None:
    own = build_control(parser().parse_args(["--fleet", "f"]), PROFILE)
    log = build_control(parser().parse_args(["--fleet", "f", "--trace", "x.csv"]), PROFILE)
    paced = build_control(parser().parse_args(["--fleet", "f", "--trace", "x.csv", "--speed", "60"]), PROFILE)
    assert (own.limits.pace_min, own.limits.pace_max) == (0.5, 1.0)
    assert log.limits.pace_max == 10.0
    assert paced.limits.pace_max == 1.0
    assert own.limits.latency_ms_max == PROFILE.slo_ms


def test_floor_and_ceiling_are_rates_of_the_whole_stream() -> None:
    control = build_control(parser().parse_args(["--fleet", "f", "--rate", "20", "--rate-min", "5", "--rate-max", "80"]), PROFILE)
    assert (control.limits.pace_min, control.limits.pace_max, control.pace) == (0.25, 4.0, 1.0)
    low = build_control(parser().parse_args(["--fleet", "f", "--rate", "20", "--rate-max", "10"]), PROFILE)
    assert low.pace == 0.5
    assert not build_control(parser().parse_args(["--fleet", "f", "--fixed"]), PROFILE).adaptive


def test_a_summary_for_a_person_names_failures_saturation_and_splits() -> None:
    summary = {
        "requests": 10, "duration_seconds": 2.0, "requests_per_second": 5.0, "latency_ms_p50": 9.5, "latency_ms_p99": None,
        "failures": 1, "shed": 0, "failures_by_reason": {"timeout": 1}, "saturated_seconds": 2, "latency_ms_p99_unsaturated": 12.0,
        "nodes": {"node-0": {"requests": 9, "emb_ratio": 0.55}},
    }  # fmt: skip
    assert human(summary).splitlines() == [
        "10 requests in 2 s, 5.0 answered/s, P50 9.5 ms, P99 - ms, failures 1, shed 0",
        "  failed: 1 x timeout",
        "  the host was saturated for 2 s: P99 without them 12 ms",
        "  node-0: 9 requests, emb_ratio 0.55, EMB hits -, KV hits -",
    ]


@pytest.mark.live
async def test_the_process_ends_on_sigterm_with_its_summary(tmp_path: Path) -> None:
    answered = asyncio.Event()

    async def infer(request: web.Request) -> web.Response:
        body = await request.json()
        count = body["inputs"][3]["shape"][1]
        answered.set()
        return web.json_response({"outputs": [{"name": "scores", "data": [0.25] * count}]}, headers={"x-helm-node": "node-0"})

    async def ready(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v2/models/helm-ranker/infer", infer)
    app.router.add_get("/v2/health/ready", ready)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    path = fleet_file(tmp_path, runner.addresses[0][1])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agents.runtime.load_main", "--fleet", str(path), "--workload", "steady", "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=dict(os.environ),
    )  # fmt: skip
    try:
        await asyncio.wait_for(answered.wait(), 60.0)
        process.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(process.communicate(), 20.0)
    finally:
        if process.returncode is None:
            process.kill()
        await runner.cleanup()
    assert process.returncode == 0, err.decode()
    summary = json.loads(out)
    assert summary["answered"] >= 1 and summary["failures"] == 0
    assert summary["workload"] == "steady"
    assert json.loads((tmp_path / "load.json").read_text())["phase"] == "done"
