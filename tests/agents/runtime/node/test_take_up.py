"""A model version is taken up by a node that serves: nobody is refused, and every answer is of the version it names."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from agents.profiles.text import profile_text
from agents.runtime.model import init_weights, save_weights
from agents.runtime.versions import Tables, current_feature_schema, find_sources, import_version, set_current_version
from agents.wire.messages import FleetFile, NodeAddress
from helmctl.cli.main import run
from tests.agents.runtime.node.parts import PATIENCE_SECONDS, Parts, request_of, settle, until
from tests.agents.runtime.node.serving import INFER, infer_body
from tests.agents.runtime.node.test_node_live import KEY, PROFILE, daemon
from tests.patience import free_port

USERS = 3
INVALIDATED = "miss;reason=invalidated_by_version"


def their_model(folder: Path, seed: int = 5) -> Path:
    """What somebody wants to import: weights and one table in one folder."""
    folder.mkdir()
    save_weights(folder / "weights.safetensors", init_weights(PROFILE.model, seed))
    rows = np.random.default_rng(seed).standard_normal((PROFILE.rows, PROFILE.model.dim), dtype=np.float32)
    np.save(folder / "items.npy", rows)
    return folder


def imported(state: Path, version: str) -> None:
    theirs = their_model(state / "theirs")
    import_version(state / "models", version, find_sources(theirs / "weights.safetensors", theirs), PROFILE)


async def ask(client: aiohttp.ClientSession, user: int) -> tuple[str, NDArray[np.float64], str]:
    """Version, scores and what the prefix cache did."""
    async with client.post(INFER, json=infer_body(user=user, tokens=16)) as response:
        body = await response.json()
        assert response.status == 200, body
        return body["model_version"], np.array(body["outputs"][0]["data"]), response.headers["x-helm-kv"]


async def choose(client: aiohttp.ClientSession, version: str) -> tuple[int, dict[str, Any]]:
    async with client.put("/v1/model", json={"version": version}, headers=KEY) as response:
        return response.status, await response.json()


async def test_a_flip_under_load_drops_nobody_and_mixes_nothing(tmp_path: Path) -> None:
    imported(tmp_path, "v2")
    async with daemon(tmp_path, admission="none", controller="static-0.50") as (_, client):
        old = [(await ask(client, user))[1] for user in range(USERS)]
        answers: list[tuple[int, str, NDArray[np.float64], str]] = []
        flipped = asyncio.Event()

        async def keep_asking(user: int) -> None:
            while not flipped.is_set() or len(answers) < 60:
                answers.append((user, *await ask(client, user)))

        askers = [asyncio.create_task(keep_asking(user)) for user in range(USERS)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await choose(client, "v2") == (200, {"name": "node-0", "model_version": "v2", "previous": "1", "feature_schema": "1"})
            flipped.set()
            await asyncio.gather(*askers)
        new = [(await ask(client, user))[1] for user in range(USERS)]
    assert {version for _, version, _, _ in answers} == {"1", "v2"}
    for user, version, scores, _ in answers:
        np.testing.assert_allclose(scores, (old if version == "1" else new)[user], atol=1e-4)
    for user in range(USERS):
        assert np.abs(old[user] - new[user]).max() > 1e-2
        first = next(kv for asker, version, _, kv in answers if (asker, version) == (user, "v2"))
        assert first == INVALIDATED


async def test_another_feature_schema_voids_prefixes_while_the_model_serves_on(tmp_path: Path) -> None:
    async with daemon(tmp_path, admission="none", controller="static-0.50") as (node, client):
        first = await ask(client, 1)
        for schema, status in (("2", 200), ("2", 200), ("../x", 400)):
            async with client.put("/v1/model", json={"feature_schema": schema}, headers=KEY) as response:
                assert response.status == status, await response.text()
        async with client.put("/v1/model", json={}, headers=KEY) as response:
            assert (response.status, (await response.json())["field"]) == (400, "version")
        version, scores, kv = await ask(client, 1)
        assert (version, kv) == ("1", INVALIDATED)
        np.testing.assert_allclose(scores, first[1], atol=1e-4)
        assert (await ask(client, 1))[2] != INVALIDATED
        assert node.engine.telemetry().feature_schema == "2"
        async with client.get("/v2/models/helm-ranker") as response:
            assert (await response.json())["parameters"] == {"feature_schema": "2"}


async def test_a_node_started_later_serves_the_current_version_with_the_same_scores(tmp_path: Path) -> None:
    imported(tmp_path, "v2")
    async with daemon(tmp_path) as (_, client):
        await choose(client, "v2")
        flipped = await ask(client, 1)
        assert await choose(client, "v2") == (200, {"name": "node-0", "model_version": "v2", "previous": "v2", "feature_schema": "1"})
        assert (await choose(client, "1"))[0] == 200
        assert (await ask(client, 1))[0] == "1"
    set_current_version(tmp_path / "models", "v2")
    async with daemon(tmp_path) as (node, client):
        started = await ask(client, 1)
        assert started[0] == flipped[0] == node.engine.telemetry().model_version == "v2"
        np.testing.assert_allclose(started[1], flipped[1], atol=1e-4)


async def test_a_version_that_cannot_be_loaded_is_refused_and_the_old_one_serves_on(tmp_path: Path) -> None:
    imported(tmp_path, "broken")
    (tmp_path / "models" / "broken" / "weights.safetensors").write_bytes(b"no weights")
    async with daemon(tmp_path) as (_, client):
        before = await ask(client, 1)
        for version, message in (("v9", "version 'v9' is not here"), ("broken", "not a safetensors file"), ("../v", "1 to 64 letters")):
            status, body = await choose(client, version)
            assert (status, body["code"], body["field"]) == (400, "invalid_request", "version")
            assert message in body["error"]
        async with client.put("/v1/model", json={"verzion": "v2"}, headers=KEY) as response:
            assert response.status == 400
        async with client.put("/v1/model", json={"version": "v2"}) as response:
            assert response.status == 401
        after = await ask(client, 1)
        assert after[0] == before[0] == "1"
        np.testing.assert_allclose(after[1], before[1], atol=1e-4)


async def test_what_was_booked_before_is_ranked_by_the_old_version_and_what_comes_after_by_the_new() -> None:
    async with Parts() as parts:
        parts.device.hold()
        running = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        prepared = [asyncio.create_task(parts.engine.infer(request_of(user))) for user in (2, 3)]  # a full batch: booked at once
        await settle()
        flip = asyncio.create_task(parts.engine.take_up("2", Tables(), lambda: parts.device.log.append("install")))
        await until(lambda: parts.engine.model_version == "2")
        late = asyncio.create_task(parts.engine.infer(request_of(4)))
        await settle()
        parts.device.release()
        results = await asyncio.gather(running, *prepared, late)
        await flip
        assert [result.model_version for result in results] == ["1", "1", "1", "2"]
        assert parts.device.log == ["batch [1]", "batch [2, 3]", "install", "batch [4]"]


async def test_a_flip_that_fails_on_the_device_takes_the_node_out() -> None:
    async with Parts() as parts:
        with pytest.raises(ValueError, match="does not fit"):
            await parts.engine.take_up("2", Tables(), _does_not_fit)
        assert "version 2 could not be installed" in await parts.engine.broken


def _does_not_fit() -> None:
    raise ValueError("does not fit")


# --- the command --------------------------------------------------------------------------


def write_fleet(state: Path, port: int) -> None:
    (state / "tiny.toml").write_text(profile_text(PROFILE))
    node = NodeAddress(name="node-0", host="127.0.0.1", port=port)
    fleet = FleetFile(cluster_salt_hex="ab", fleet_key="key", router=node, nodes=[node], profile=str(state / "tiny.toml"))
    (state / "fleet.json").write_bytes(msgspec.json.encode(fleet))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HELM_STATE_DIR", str(tmp_path))
    return tmp_path


async def test_one_command_imports_a_model_and_flips_the_running_node(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = their_model(state / "theirs")
    async with daemon(state) as (node, client):
        write_fleet(state, node.port)
        assert await asyncio.to_thread(run, ["model", "import", str(theirs), "--version", "v2", "--json"]) == 0
        said = json.loads(capsys.readouterr().out.splitlines()[-1])  # the node in this process logs to the same stream
        assert said == {
            "version": "v2",
            "rows": 1000,
            "tables": ["items.npy"],
            "nodes": [{"node": "node-0", "outcome": "serves it", "previous": "1"}],
        }
        assert (await ask(client, 1))[0] == "v2"
        assert await asyncio.to_thread(run, ["model", "use", "1"]) == 0
        assert (await ask(client, 1))[0] == "1"
        capsys.readouterr()
        assert await asyncio.to_thread(run, ["model", "features", "f2"]) == 0
        assert capsys.readouterr().out.endswith("feature schema f2\n  node-0      serves it\n")
        assert node.engine.feature_schema == current_feature_schema(state / "models") == "f2"
        assert run(["model", "list"]) == 0
        assert capsys.readouterr().out == "* 1\n  v2\n"


def test_without_a_running_node_the_version_waits_for_the_next_start(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = their_model(state / "theirs")
    write_fleet(state, free_port())
    assert run(["model", "import", "--weights", f"{theirs}/weights.safetensors", "--tables", str(theirs), "--version", "v2"]) == 0
    assert "node-0      not running" in capsys.readouterr().out
    assert run(["model", "import", str(theirs), "--version", "v3", "--no-use"]) == 0
    assert "not in use; take it up with: helmctl model use v3" in capsys.readouterr().out
    assert run(["model", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"versions": ["1", "v2", "v3"], "current": "v2"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["import", "--version", "v2"], "name a folder, or --weights FILE and --tables DIR"),
        (["import", "nowhere", "--version", "v2"], "nowhere/weights.safetensors: there is no such file of weights"),
        (["import", "theirs", "--version", "v/2"], "version 'v/2': 1 to 64 letters"),
        (["import", "theirs", "--version", "1"], "version '1' is here already"),
        (["import", "theirs", "--version", "v2", "--profile", "h900"], "profile: unknown 'h900'"),
        (
            ["import", "theirs", "--version", "v2", "--profile", "cpu-tiny"],
            "weights.safetensors: position_bias has shape (2, 65), expected (2, 1537)",
        ),
        (["use", "v9"], "version 'v9' is not here, there are 1"),
        (["features", "f/2"], "feature schema 'f/2': 1 to 64 letters"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    their_model(state / "theirs")
    write_fleet(state, free_port())
    monkeypatch.chdir(state)
    assert run(["model", *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
