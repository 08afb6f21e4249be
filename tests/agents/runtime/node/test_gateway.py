"""HTTP of a node: answers, refusals and limits. Real sockets, tiny brain."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from agents.runtime.listener import HEADER_BYTES_MAX
from agents.wire.ids import user_key
from agents.wire.messages import ClusterReuse
from tests.agents.runtime.node.parts import PATIENCE_SECONDS, until
from tests.agents.runtime.node.serving import INFER, KEY, SALT, Served, answer, infer_body, served


async def test_health_and_metadata_are_open() -> None:
    async with served() as node:
        for path, expected in (
            ("/v2/health/live", {"live": True}),
            ("/v2/health/ready", {"ready": True}),
            ("/v2/models/helm-ranker/ready", {"name": "helm-ranker", "ready": True}),
            ("/v2/models/helm-ranker/versions/1/ready", {"name": "helm-ranker", "ready": True}),
        ):
            async with node.client.get(path) as response:
                assert (response.status, await answer(response)) == (200, expected)
        async with node.client.get("/v2") as response:
            assert (await answer(response))["extensions"] == ["binary_tensor_data", "parameters", "statistics", "helm_residency"]
        for path in ("/v2/models/helm-ranker", "/v2/models/helm-ranker/versions/1"):
            async with node.client.get(path) as response:
                assert (await answer(response))["versions"] == ["1"]


async def test_an_inference_has_scores_stage_times_and_says_what_the_cache_did() -> None:
    async with served() as node:
        seen = []
        for tokens in (8, 8, 13):
            async with node.client.post(INFER, json=infer_body(tokens=tokens, id="r1"), headers={"x-request-id": "q"}) as response:
                assert response.status == 200
                body = await answer(response)
                assert body["id"] == "r1"
                assert body["outputs"][0]["data"] == pytest.approx([0.5, 0.501, 0.502, 0.503])
                assert response.headers["Server-Timing"] == "queue;dur=0.000, emb;dur=1.000, kv;dur=2.000, compute;dur=3.000"
                assert response.headers["x-helm-node"] == "node-0"
                assert response.headers["x-request-id"] == "q"
                seen.append(response.headers["x-helm-kv"])
        assert seen == ["miss;reason=cold", "hit", "partial"]


async def test_the_version_in_the_path_is_optional() -> None:
    async with served() as node, node.client.post("/v2/models/helm-ranker/versions/1/infer", json=infer_body()) as response:
        assert response.status == 200
        assert (await answer(response))["model_version"] == "1"


async def test_user_keys_are_the_clusters() -> None:
    async with served() as node:
        async with node.client.post(INFER, json=infer_body(user="u7")):
            pass
        frame = node.engine.residency_since(-1)
        assert frame.user_keys == [user_key("u7", SALT)]


async def test_users_without_an_id_are_served_cold_every_time_and_leave_nothing() -> None:
    async with served() as node:
        for _ in range(3):
            async with node.client.post(INFER, json=infer_body(user=None), headers={"x-helm-reuse-gap-ms": "5"}) as response:
                assert response.status == 200
                assert response.headers["x-helm-kv"] == "miss;reason=cold"
        assert node.engine.telemetry().kv.used_bytes == 0


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_body_is_taken(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    async with served() as node:
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        async with node.client.post(INFER, data=pack(json.dumps(infer_body()).encode()), headers=headers) as response:
            assert response.status == 200


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip"])
async def test_an_encoding_that_is_not_ours_is_refused_by_name(encoding: str) -> None:
    async with served() as node, node.client.post(INFER, data=b"x" * 100, headers={"Content-Encoding": encoding}) as response:
        assert response.status == 400
        assert list(await answer(response)) == ["error"]


async def test_bytes_that_only_claim_to_be_compressed_are_refused() -> None:
    async with served() as node, node.client.post(INFER, data=b"plain", headers={"Content-Encoding": "gzip"}) as response:
        assert response.status == 400


async def test_scores_come_compressed_to_those_who_ask() -> None:
    async with served() as node:
        for accepted, encoding in (("gzip", "gzip"), ("deflate", "deflate"), ("identity", None), ("gzip;q=0", None)):
            async with node.client.post(INFER, json=infer_body(), headers={"Accept-Encoding": accepted}) as response:
                assert response.headers.get("Content-Encoding") == encoding
                assert (await answer(response))["outputs"][0]["shape"] == [1, 4]


async def test_statistics_count_answers_batches_and_failures() -> None:
    async with served() as node:
        for _ in range(2):
            async with node.client.post(INFER, json=infer_body()):
                pass
        node.device.failures = [RuntimeError("kernel died")]
        async with node.client.post(INFER, json=infer_body()) as response:
            assert response.status == 500
        for path in ("/v2/models/stats", "/v2/models/helm-ranker/stats", "/v2/models/helm-ranker/versions/1/stats"):
            async with node.client.get(path) as response:
                (found,) = (await answer(response))["model_stats"]
            assert (found["inference_count"], found["execution_count"]) == (2, 2)
            assert found["last_inference"] == node.clock.unix_ns() // 1_000_000
            counts = found["inference_stats"]
            assert counts["success"] == {"count": 2, "ns": 12_000_000}
            assert (counts["compute_input"]["ns"], counts["compute_infer"]["ns"], counts["compute_output"]["ns"]) == (6e6, 6e6, 0)
            assert counts["fail"]["count"] == 1
            assert [batch["batch_size"] for batch in found["batch_stats"]] == [1]
        async with node.client.get("/v2/models/other/stats") as response:
            assert response.status == 404


async def test_a_clients_timeout_is_its_deadline() -> None:
    async with served() as node:
        node.device.hold()
        first = asyncio.create_task(_status(node, 1))
        await node.device_entered()
        late = asyncio.create_task(_status(node, 2, parameters={"user_id": 2, "timeout": 50_000}))
        await until(lambda: node.engine.queue_depth == 2)
        node.clock.forward(0.05)
        node.engine.tick()
        assert (await late)[:2] == (503, "deadline_exceeded")
        node.device.release()
        assert (await first)[0] == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v2/models/other/infer", 404), ("/v2/models/helm-ranker/versions/9/infer", 404), ("/nowhere", 404), ("/v2/health/live", 405)],
)
async def test_what_is_not_here_is_an_error_object(path: str, status: int) -> None:
    async with served() as node, node.client.post(path, json=infer_body()) as response:
        assert response.status == status
        body = await answer(response)
        assert list(body) == ["error"]
        assert isinstance(body["error"], str)


async def test_bad_requests_are_error_objects_and_the_node_serves_on() -> None:
    async with served() as node:
        bad: list[bytes] = [b"", b"{", b"not json", json.dumps({"inputs": []}).encode(), b"\x00" * 100, b'{"inputs": NaN}']
        for content in bad:
            async with node.client.post(INFER, data=content) as response:
                assert response.status == 400
                assert list(await answer(response)) == ["error"]
        async with node.client.post(INFER, json=infer_body()) as response:
            assert response.status == 200
        assert node.engine.failures_total == 0


@pytest.mark.parametrize(
    ("header", "value"),
    [("x-helm-deadline-ms", "soon"), ("x-helm-deadline-ms", "0"), ("x-helm-deadline-ms", "nan"), ("x-helm-reuse-gap-ms", "-5")],
)
async def test_headers_that_make_no_sense_are_refused_by_name(header: str, value: str) -> None:
    async with served() as node, node.client.post(INFER, json=infer_body(), headers={header: value}) as response:
        assert response.status == 400
        assert header in (await answer(response))["error"]


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read() -> None:
    async with served() as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(f"POST {INFER} HTTP/1.1\r\nHost: h\r\nContent-Length: {20 << 20}\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
        assert b" 413 " in head
        writer.close()


async def test_twenty_megabytes_are_too_large_however_they_come() -> None:
    async with served() as node:
        content = b" " * (20 << 20)

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(content), 1 << 20):
                yield content[start : start + (1 << 20)]

        bomb = gzip.compress(content)
        for data, headers in ((content, {}), (chunks(), {}), (bomb, {"Content-Encoding": "gzip"})):
            async with node.client.post(INFER, data=data, headers=headers) as response:
                assert response.status == 413
                assert list(await answer(response)) == ["error"]
        async with node.client.post(INFER, json=infer_body()) as response:
            assert response.status == 200


async def test_a_client_that_drips_its_body_is_told_and_cut() -> None:
    async with served(body_seconds_max=0.2) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(f"POST {INFER} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n".encode() + b"{")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
        assert b" 408 " in head
        assert b"connection: close" in head.lower()
        assert b"error" in await asyncio.wait_for(reader.readuntil(b"}"), PATIENCE_SECONDS)
        writer.close()
        async with node.client.get("/v2/health/ready") as response:
            assert response.status == 200


async def test_a_client_that_drips_its_header_is_cut() -> None:
    async with served(idle_seconds_max=0.3) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(b"POST /v2 HTTP/1.1\r\nHost:")
        assert await asyncio.wait_for(reader.read(), PATIENCE_SECONDS) == b""
        writer.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"hello there\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: h\r\nx: " + b"y" * (2 * HEADER_BYTES_MAX) + b"\r\n\r\n",
        b"GET /" + b"y" * (2 * HEADER_BYTES_MAX) + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_an_error_object_and_an_end(raw: bytes) -> None:
    async with served() as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(raw)
        content = await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
        assert b" 400 " in content.split(b"\r\n")[0]
        assert list(json.loads(content.split(b"\r\n\r\n", 1)[1])) == ["error"]
        writer.close()


async def test_a_full_queue_is_429_with_a_time_to_come_back() -> None:
    async with served() as node:
        node.device.hold()
        tasks = [asyncio.create_task(_status(node, user)) for user in range(20)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            while len(done) < 20 - 8:  # two batches of up to two on the device, four in the queue
                more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                done |= more
        assert {task.result() for task in done} == {(429, "queue_full", True)}
        node.device.release()
        assert {(await task)[0] for task in waiting} == {200}


async def _status(node: Served, user: int, **top: Any) -> tuple[int, str | None, bool]:
    async with node.client.post(INFER, json=infer_body(user=user, **top)) as response:
        await response.read()
        retry = response.headers.get("Retry-After")
        return response.status, response.headers.get("x-helm-error-code"), retry is not None and int(retry) >= 1


async def test_a_draining_node_says_503_and_not_ready() -> None:
    async with served() as node:
        await node.engine.drain(1.0)
        for path in ("/v2/health/ready", "/v2/models/helm-ranker/ready"):
            async with node.client.get(path) as response:
                assert (response.status, (await answer(response))["ready"]) == (503, False)
        async with node.client.get("/v2/health/live") as response:
            assert response.status == 200
        async with node.client.post(INFER, json=infer_body()) as response:
            assert response.status == 503
            assert response.headers["x-helm-error-code"] == "draining"
            assert "Retry-After" in response.headers


async def test_a_client_that_hangs_up_leaves_the_queue() -> None:
    async with served() as node:
        node.device.hold()
        first = asyncio.create_task(_status(node, 1))
        await node.device_entered()
        gone = asyncio.create_task(_status(node, 2))
        await until(lambda: node.engine.queue_depth == 2)
        gone.cancel()
        await until(lambda: node.engine.queue_depth == 1)
        node.device.release()
        assert (await first)[0] == 200
        assert len(node.device.log) == 1


@pytest.mark.parametrize("path", ["/v1/status", "/v1/decisions", "/v1/residency", "/v1/nowhere"])
@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}, {"Authorization": "Bearer sécret"}]
)
async def test_the_fleets_paths_need_the_fleets_key(path: str, headers: dict[str, str]) -> None:
    async with served() as node, node.client.get(path, headers=headers) as response:
        assert response.status == 401
        assert (await answer(response))["code"] == "unauthenticated"


async def test_status_is_the_telemetry() -> None:
    async with served() as node, node.client.get("/v1/status", headers=KEY) as response:
        body = await answer(response)
        assert (body["name"], body["mode"], body["phase"], body["emb_ratio"]) == ("node-0", "auto", "ready", 0.5)


async def control(node: Served, content: Any) -> tuple[int, Any]:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    async with node.client.put("/v1/control", data=raw, headers=KEY) as response:
        return response.status, await answer(response)


async def test_an_override_is_set_by_hand_and_released_by_hand() -> None:
    async with served() as node:
        status, body = await control(node, {"mode": "override", "emb_ratio": 0.6, "ttl_ms": 5_000, "reason": "test"})
        assert (status, body["mode"], body["override_remaining_ms"]) == (200, "override", 5_000)
        status, body = await control(node, {"mode": "auto"})
        assert (status, body["mode"], body["override_remaining_ms"]) == (200, "auto", None)


@pytest.mark.parametrize(
    ("changes", "status", "code", "field"),
    [
        ({"emb_ratio": 0.95}, 422, "outside_guard_rails", "emb_ratio"),
        ({"emb_ratio": -0.1}, 422, "outside_guard_rails", "emb_ratio"),
        ({"emb_ratio": float("nan")}, 400, "invalid_request", "emb_ratio"),
        ({"emb_ratio": None}, 400, "invalid_request", "emb_ratio"),
        ({"emb_ratio": "0.5"}, 400, "invalid_request", "emb_ratio"),
        ({"ttl_ms": 0}, 400, "invalid_request", "ttl_ms"),
        ({"ttl_ms": -5}, 400, "invalid_request", "ttl_ms"),
        ({"ttl_ms": 999}, 400, "invalid_request", "ttl_ms"),
        ({"ttl_ms": 12 * 3_600_000 + 1}, 400, "invalid_request", "ttl_ms"),
        ({"ttl_ms": None}, 400, "invalid_request", "ttl_ms"),
        ({"reason": ""}, 400, "invalid_request", "reason"),
        ({"reason": "   "}, 400, "invalid_request", "reason"),
        ({"mode": "recovery"}, 400, "invalid_request", "mode"),
        ({"mode": "pin"}, 400, "invalid_request", "ttl_ms"),
        ({"surprise": 1}, 400, "invalid_request", "surprise"),
    ],
)
async def test_commands_that_make_no_sense_are_refused_by_name_and_change_nothing(
    changes: dict[str, Any], status: int, code: str, field: str
) -> None:
    async with served() as node:
        good = {"mode": "override", "emb_ratio": 0.6, "ttl_ms": 5_000, "reason": "test"}
        got, body = await control(node, {**good, **changes})
        assert (got, body["code"], body["field"]) == (status, code, field)
        assert isinstance(body["error"], str)
        assert node.engine.telemetry().mode == "auto"


async def test_a_command_that_is_not_json_is_refused() -> None:
    async with served() as node:
        status, body = await control(node, b"emb_ratio=0.5")
        assert (status, body["code"], body["field"]) == (400, "invalid_request", None)


async def test_reuse_statistics_are_taken_and_nonsense_is_not() -> None:
    async with served() as node:
        message = ClusterReuse(
            router_id="r",
            at_unix_ns=1,
            nodes=1,
            requests_per_second=10.0,
            sampling_rate=1.0,
            edges_tokens=[0.0, 100.0, 200.0],
            references_per_second=[1.0, 2.0, 3.0],
            tokens_per_second=[8.0, 16.0, 0.0],
            tokens_squared_per_second=[64.0, 128.0, 0.0],
        )
        async with node.client.post("/v1/reuse", data=msgspec.msgpack.encode(message), headers=KEY) as response:
            assert response.status == 204
        for content in (b"", b"\xc1", msgspec.msgpack.encode({"type": "reuse"}), b"x" * 1_000):
            async with node.client.post("/v1/reuse", data=content, headers=KEY) as response:
                assert (response.status, (await answer(response))["code"]) == (400, "invalid_request")


async def test_decisions_are_listed_newest_first_up_to_a_limit() -> None:
    async with served() as node:
        for _ in range(200):
            node.clock.forward(0.1)
            node.engine.tick()
        async with node.client.get("/v1/decisions?limit=2", headers=KEY) as response:
            body = await answer(response)
            assert len(body) == 2
            assert body[0]["seq"] == body[1]["seq"] + 1
        for limit in ("0", "-1", "many", "100000"):
            async with node.client.get(f"/v1/decisions?limit={limit}", headers=KEY) as response:
                assert (response.status, (await answer(response))["field"]) == (400, "limit")


async def test_metrics_count_what_happened() -> None:
    async with served() as node:
        for _ in range(2):
            async with node.client.post(INFER, json=infer_body()):
                pass
        for _ in range(30):
            node.clock.forward(0.1)
            node.engine.tick()
        async with node.client.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        assert 'helm_pool_requests_total{outcome="hit",pool="kv"} 1.0' in lines
        assert 'helm_pool_requests_total{outcome="miss",pool="kv"} 1.0' in lines
        assert 'helm_node_split_ratio{gpu="listening",kind="actual",node="node-0"} 0.5' in lines
        assert 'helm_slo_requests_total{met="true"} 2.0' in lines
        assert 'helm_kv_misses_total{reason="cold"} 1.0' in lines
        tables = [line.rsplit(" ", 1) for line in lines if line.startswith("helm_emb_table_requests_total{")]
        assert [labels for labels, _ in tables] == [
            f'helm_emb_table_requests_total{{outcome="{outcome}",table="rows"}}' for outcome in ("hit", "miss")
        ]
        assert sum(float(count) for _, count in tables) == parts_looked_up(lines)
        assert 'helm_request_stage_seconds_count{stage="compute"} 2.0' in lines
        for name in ("bytes_total", "backlog_bytes", "bytes_per_second", "throttled_seconds_total"):
            assert any(line.startswith(f"helm_refill_{name}") for line in lines), name
        assert any(line.startswith("helm_decisions_total{") for line in lines)
        assert any(line.startswith('helm_decision_duration_seconds_count{layer="all"}') for line in lines)
        names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
        assert all(name.startswith("helm_") for name in names)


def parts_looked_up(lines: list[str]) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("helm_pool_requests_total{") and 'pool="emb"' in line)
