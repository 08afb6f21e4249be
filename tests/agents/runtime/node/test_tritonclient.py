"""The public client of the inference protocol, unchanged, against a node and through a router."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from agents.router.router import Router, RouterConfig
from agents.runtime.router.daemon import RouterDaemon
from agents.wire.messages import FleetFile, NodeAddress
from tests.agents.runtime.node.parts import until
from tests.agents.runtime.node.serving import SALT, Served, served
from tests.agents.runtime.router.fakes import FAST

MODEL = "helm-ranker"
NETWORK_SECONDS = 180.0  # the server's loop may be compiling its first kernels
PATIENT = FAST._replace(silence_seconds=60.0)  # node, router and kernel compiler share this loop
EXPECTED = (np.arange(500, 504) / 1_000).astype(np.float32).reshape(1, 4)


class Stage(NamedTuple):
    node: Served
    port: int
    daemon: RouterDaemon | None


@asynccontextmanager
async def stage(through: str) -> AsyncIterator[Stage]:
    """A tiny node; `through` says where the client knocks."""
    async with served() as node:
        if through == "node":
            yield Stage(node, node.port, None)
            return
        address = NodeAddress(name="node-0", host="127.0.0.1", port=node.port)
        router = NodeAddress(name="router", host="127.0.0.1", port=0)
        fleet = FleetFile(cluster_salt_hex=SALT.hex(), fleet_key="secret", router=router, nodes=[address], profile="cpu-demo")
        daemon = RouterDaemon(fleet, node.profile, Router(["node-0"], RouterConfig(users_max=64, copies_max=64), seed=1), PATIENT)
        port = await daemon.start("127.0.0.1", 0)
        try:
            await until(lambda: daemon.brain.ready_count() == 1)
            yield Stage(node, port, daemon)
        finally:
            await daemon.close()


def inputs(binary: bool, tokens: int = 8, **changed: list[int]) -> list[Any]:
    values = {
        "history_items": list(range(tokens)),
        "history_actions": [0] * tokens,
        "history_ts": list(range(tokens)),
        "candidates": list(range(500, 504)),
        **changed,
    }
    tensors = []
    for name, content in values.items():
        tensor = triton.InferInput(name, [1, len(content)], "INT64")
        tensor.set_data_from_numpy(np.array([content], np.int64), binary_data=binary)
        tensors.append(tensor)
    return tensors


def visit(port: int) -> dict[str, Any]:
    """Everything a client does, on its own thread: it blocks."""
    seen: dict[str, Any] = {}
    with triton.InferenceServerClient(f"127.0.0.1:{port}", network_timeout=NETWORK_SECONDS) as client:
        seen["ready"] = (client.is_server_live(), client.is_server_ready(), client.is_model_ready(MODEL), client.is_model_ready(MODEL, "1"))
        seen["server"] = client.get_server_metadata()
        seen["model"] = client.get_model_metadata(MODEL)
        for binary_in in (False, True):
            for binary_out in (False, True):
                asked = [triton.InferRequestedOutput("scores", binary_data=binary_out)]
                user = {"user_id": f"u{binary_in}{binary_out}"}
                result = client.infer(MODEL, inputs(binary_in), outputs=asked, request_id="r1", parameters=user)
                np.testing.assert_allclose(result.as_numpy("scores"), EXPECTED)
                assert result.get_response()["id"] == "r1"
                assert ("parameters" in result.get_output("scores")) is binary_out
        for way in ("gzip", "deflate"):
            for binary_in in (False, True):
                result = client.infer(
                    MODEL, inputs(binary_in), request_compression_algorithm=way, response_compression_algorithm=way, timeout=5_000_000
                )
                np.testing.assert_allclose(result.as_numpy("scores"), EXPECTED)
        pending = client.async_infer(MODEL, inputs(True), model_version="1")
        np.testing.assert_allclose(pending.get_result().as_numpy("scores"), EXPECTED)
        with pytest.raises(InferenceServerException) as refused:
            client.infer(MODEL, inputs(True, candidates=[5, 1_000]))
        seen["refused"] = (refused.value.status(), refused.value.message())
        with pytest.raises(InferenceServerException) as unknown:
            client.get_model_metadata("other")
        seen["unknown"] = unknown.value.status()
        seen["statistics"] = client.get_inference_statistics(MODEL)
        seen["all"] = client.get_inference_statistics()
    return seen


@pytest.mark.parametrize("through", ["node", "router"])
async def test_the_public_client_works_unchanged(through: str) -> None:
    async with stage(through) as scene:
        seen = await asyncio.to_thread(visit, scene.port)
    assert seen["ready"] == (True, True, True, True)
    assert seen["server"]["name"] == "helm"
    assert "binary_tensor_data" in seen["server"]["extensions"]
    assert [tensor["name"] for tensor in seen["model"]["inputs"]] == ["history_items", "history_actions", "history_ts", "candidates"]
    assert seen["refused"][0] == "400"
    assert "index 1" in seen["refused"][1]
    assert seen["unknown"] == "404"
    (statistics,) = seen["statistics"]["model_stats"]
    assert statistics["inference_stats"]["success"]["count"] == 9
    assert seen["all"]["model_stats"][0]["name"] == MODEL


async def test_a_router_knows_the_user_of_a_binary_request() -> None:
    def ask(port: int) -> None:
        with triton.InferenceServerClient(f"127.0.0.1:{port}", network_timeout=NETWORK_SECONDS) as client:
            for user in (1, 2):
                client.infer(MODEL, inputs(True), parameters={"user_id": user}, request_compression_algorithm="gzip")
            client.infer(MODEL, inputs(True))

    async with stage("router") as scene:
        await asyncio.to_thread(ask, scene.port)
        assert scene.daemon is not None
        assert scene.daemon.brain.totals()["users"] == 2
        assert scene.daemon.counters.cold_requests_total == 1


@pytest.mark.parametrize("through", ["node", "router"])
async def test_a_draining_node_is_not_ready_for_the_public_client(through: str) -> None:
    def ask(port: int) -> tuple[bool, bool, str]:
        with triton.InferenceServerClient(f"127.0.0.1:{port}", network_timeout=NETWORK_SECONDS) as client:
            with pytest.raises(InferenceServerException) as refused:
                client.infer(MODEL, inputs(True))
            return client.is_server_live(), client.is_server_ready(), refused.value.status()

    async with stage(through) as scene:
        await scene.node.engine.drain(1.0)
        if (daemon := scene.daemon) is not None:
            await until(lambda: daemon.brain.ready_count() == 0)
        assert await asyncio.to_thread(ask, scene.port) == (True, False, "503")
