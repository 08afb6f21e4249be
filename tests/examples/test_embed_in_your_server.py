"""The example hosts both caches in a server that is not ours, and the control plane moves its ratio while it answers."""

import asyncio
import importlib.util
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from agents.node.batch import MissReason
from agents.node.node import NodeConfig
from agents.profiles import load_profile
from agents.runtime.device.table import HostTable, ensure_table
from agents.runtime.hosted import ControlPlane, HostedCaches
from agents.wire.messages import Hello, Mode, NodeSpec, NodeTelemetry
from tests.agents.runtime.node.parts import tiny_profile, until
from tests.agents.runtime.node.test_link import ControlPlane as FakeControlPlane

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "embed_in_your_server.py"
PROFILE = tiny_profile(link_bytes_per_second=1e9, refill_bytes_per_second=1e8, queue_max=16)
OPEN = NodeConfig(controller="static-0.50", admission="none", tick_ns=10_000_000)
ASKERS, TOKENS = 4, 16


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embed_in_your_server", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> None:
    """The host's choice, not the pool's: these products are too small to share."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> HostTable:
    return HostTable(ensure_table(tmp_path_factory.mktemp("tables"), PROFILE.rows, PROFILE.model.dim, seed=1))


@pytest.fixture
def model() -> Any:
    torch.manual_seed(1)
    return example().YourModel(PROFILE.model.dim, PROFILE.kv_token_bytes // 4)


@contextmanager
def served(caches: HostedCaches, model: Any) -> Iterator[str]:
    server = example().make_server(caches, model)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def items_of(user: int, tokens: int) -> list[int]:
    return [(user * 31 + token * 7) % PROFILE.rows for token in range(tokens)]


def ask(url: str, user: int, tokens: int = TOKENS) -> dict[str, Any]:
    body = json.dumps({"user": user, "items": items_of(user, tokens), "candidates": [user, 500, 999]}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=20) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def from_scratch(model: Any, table: HostTable, user: int, tokens: int = TOKENS) -> NDArray[np.float32]:
    nothing = torch.empty(0, PROFILE.kv_token_bytes // 4)
    rows, candidates = table.gather(np.array(items_of(user, tokens))), table.gather(np.array([user, 500, 999]))
    scores, _ = model(rows, nothing, candidates)
    return np.asarray(scores.numpy())


def test_the_example_stays_within_a_page() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 60
    profile = load_profile("cpu-tiny")  # what it runs with by itself
    assert profile.row_bytes == 4 * profile.model.dim


async def test_the_control_plane_moves_the_ratio_while_requests_run_and_scores_stay_the_same(
    tmp_path: Path, table: HostTable, model: Any
) -> None:
    (tmp_path / "token").write_text("one-time")
    stop = threading.Event()
    plane = FakeControlPlane()
    async with plane.serving():
        control = ControlPlane(plane.url, tmp_path / "credential", tmp_path / "token")
        with HostedCaches(PROFILE, table, name="theirs", config=OPEN, control=control) as caches, served(caches, model) as url:
            hello = await plane.hear(lambda frame: isinstance(frame, Hello))
            assert (hello.name, hello.profile, hello.emulated) == ("theirs", "tiny", True)
            answers: list[tuple[int, dict[str, Any]]] = []

            def keep_asking(first: int) -> None:
                user = first
                while not stop.is_set():
                    answers.append((user, ask(url, user)))
                    user = first + (user + ASKERS) % 12

            askers = [asyncio.create_task(asyncio.to_thread(keep_asking, first)) for first in range(ASKERS)]
            try:
                for generation, ratio in ((1, 0.75), (2, 0.25)):
                    spec = NodeSpec(generation=generation, mode=Mode.OVERRIDE, emb_ratio=ratio, reason="test", ttl_remaining_ms=600_000)
                    assert (await plane.command(f"c{generation}", spec)).accepted
                    asked = len(answers)
                    await until(lambda ratio=ratio: caches.emb_ratio == ratio)
                    await until(lambda asked=asked: len(answers) >= asked + 20)
            finally:
                stop.set()
                await asyncio.gather(*askers)
            report = await plane.hear(lambda frame: isinstance(frame, NodeTelemetry) and frame.requests_total > 0)
            assert report.emulated
    for user, answer in answers:
        np.testing.assert_allclose(answer["scores"], from_scratch(model, table, user), atol=1e-4)
    assert {answer["cached_tokens"] for _, answer in answers} >= {0, TOKENS}


def test_a_prefix_is_reused_when_the_history_has_grown(table: HostTable, model: Any) -> None:
    with HostedCaches(PROFILE, table, config=OPEN) as caches, served(caches, model) as url:
        assert ask(url, 1, 8)["cached_tokens"] == 0
        grown = ask(url, 1, 11)
        assert grown["cached_tokens"] == 8
        np.testing.assert_allclose(grown["scores"], from_scratch(model, table, 1, 11), atol=1e-4)


def test_what_fails_in_your_model_leaves_nothing_half_kept(table: HostTable) -> None:
    with HostedCaches(PROFILE, table, config=OPEN) as caches:
        with pytest.raises(ZeroDivisionError), caches.lease(1, items_of(1, 8), [5]) as lease:
            lease.keep(torch.full((8, 256), 7.0))
            raise ZeroDivisionError
        with caches.lease(1, items_of(1, 8), [5]):
            pass  # and so does a lease that keeps nothing
        with caches.lease(1, items_of(1, 8), [5]) as lease:
            assert lease.cached_tokens == 0
            lease.keep(torch.full((8, 256), 3.0))
        with caches.lease(1, items_of(1, 8), [5]) as lease:
            assert (lease.cached_tokens, lease.miss_reason) == (8, MissReason.HIT)
            assert bool((lease.prefix == 3.0).all())


def test_what_is_kept_has_the_shape_of_the_new_tokens(table: HostTable) -> None:
    with HostedCaches(PROFILE, table, config=OPEN) as caches:
        for wrong in (torch.zeros(7, 256), torch.zeros(8, 255), torch.zeros(8, 256, dtype=torch.float64)):
            with (
                pytest.raises(ValueError, match=r"keep: .*, expected \(8, 256\) torch.float32 on cpu"),
                caches.lease(1, items_of(1, 8), [5]) as lease,
            ):
                lease.keep(wrong)


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        (([], [1]), {}, "items: none given"),
        (([1], []), {}, "candidates: none given"),
        (([1, 1000], [1]), {}, "items: 1000 at index 1 is outside 0 to 999"),
        (([1], [-1]), {}, "candidates: -1 at index 0 is outside"),
        (([1.5], [1]), {}, "items: a flat list of integers is needed"),
        (([[1]], [1]), {}, "items: a flat list of integers is needed"),
        (([1, 2], [1]), {"actions": [1]}, "actions: 1 values for 2 items"),
        (([1, 2], [1]), {"timestamps": [1, 2, 3]}, "timestamps: 3 values for 2 items"),
    ],
)
def test_what_a_client_got_wrong_is_named_and_books_nothing(
    table: HostTable, arguments: tuple[Any, Any], more: dict[str, Any], message: str
) -> None:
    with HostedCaches(PROFILE, table, config=OPEN) as caches:
        with pytest.raises(ValueError, match=message), caches.lease(1, *arguments, **more):
            pytest.fail("there is nothing to lease")
        with caches.lease(1, [1], [1]) as lease:
            assert lease.new_rows.shape == (1, 64)


def test_a_stranger_is_served_and_nothing_is_kept_of_him(table: HostTable) -> None:
    with HostedCaches(PROFILE, table, config=OPEN) as caches:
        for _ in range(2):
            with caches.lease(None, items_of(1, 8), [5]) as lease:
                assert (lease.cached_tokens, lease.new_rows.shape[0]) == (0, 8)


def test_requests_of_one_user_wait_for_each_other_and_those_of_others_do_not(table: HostTable) -> None:
    order: list[str] = []
    with HostedCaches(PROFILE, table, config=OPEN) as caches:

        def again() -> None:
            with caches.lease(1, items_of(1, 8), [5]) as lease:
                order.append(f"second has {lease.cached_tokens}")

        with caches.lease(1, items_of(1, 8), [5]) as lease:
            waiting = threading.Thread(target=again)
            waiting.start()
            with caches.lease(2, items_of(2, 8), [5]):
                order.append("another user")
            order.append("first")
            lease.keep(torch.zeros(8, 256))
        waiting.join()
    assert order == ["another user", "first", "second has 8"]


def test_a_profile_of_two_byte_elements_hosts_bfloat16(tmp_path: Path) -> None:
    half = msgspec.structs.replace(PROFILE, row_bytes=128, kv_token_bytes=512)
    table = HostTable(ensure_table(tmp_path, PROFILE.rows, PROFILE.model.dim, seed=1), torch.bfloat16)
    with HostedCaches(half, table, config=OPEN) as caches, caches.lease(1, items_of(1, 8), [5]) as lease:
        assert lease.new_rows.dtype == lease.prefix.dtype == torch.bfloat16
        lease.keep(torch.zeros(8, 256, dtype=torch.bfloat16))
