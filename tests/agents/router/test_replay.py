"""A recorded run is recomputed pick by pick, and a changed constant is noticed."""

from pathlib import Path

import numpy as np
import pytest

from agents.router.replay import ReplayResult, repeat, replay, router_of
from agents.router.router import RouterConfig
from agents.router.state import Filter
from agents.runtime.router.recording import RecordingRouter
from agents.wire.messages import Phase, ResidencyDelta, ResidencySnapshot
from agents.workloads.journal import End
from agents.workloads.router_journal import Picked, RouterHeader, RouterRecord, encode_router_record, read_router_records
from tests.agents.router.nodes import MS, SMALL, load


def recorded(folder: Path, config: RouterConfig = SMALL) -> Path:
    live = RecordingRouter([f"node-{i}" for i in range(3)], config, 5, folder, "router", 77)
    rng = np.random.default_rng(8)
    for node in range(3):
        live.node_load(node, 0, load())
        live.residency(node, ResidencySnapshot(seq=0, user_keys=[], cached_tokens=[]))
    for i in range(1, 400):
        now = i * 7 * MS
        key = int(rng.integers(0, 40))
        barred = np.zeros(3, dtype=np.int8)
        barred[i % 5 % 3] = Filter.EXCLUDED if i % 5 < 2 else 0
        choice = live.pick(now, key, 64 * int(rng.integers(1, 9)), 20, barred)
        if i % 11 == 0:
            choice = live.pick(now, key, 256, 20, None, choice.reuse_gap_ns)
        if i % 13:
            live.completed(now + 5 * MS, choice.reservation, float(rng.uniform(2, 30)), failed=i % 17 == 0)
        live.residency(choice.node_index, ResidencyDelta(seq_first=i, seq=i, user_keys=[key + 1], cached_tokens=[128]))
        if i % 20 == 0:
            live.node_load(i % 3, now, load(queued_ms=float(rng.uniform(0, 50)), phase=Phase.READY))
            live.reap(now)
            live.seen(now, [key + 2], [int(rng.integers(0, 500))])
        if i == 200:
            live.node_gone(1)
            live.node_load(1, now, load())
    live.journal.close()
    return live.journal.path


def test_a_journal_is_recomputed_pick_by_pick(tmp_path: Path) -> None:
    records = list(read_router_records(recorded(tmp_path)))
    assert isinstance(records[-1], End)
    assert records[-1].reason == "closed"
    assert replay(records) == ReplayResult(picks=399 + 36, mismatches=0, first_mismatch=-1)


def test_a_changed_constant_is_noticed(tmp_path: Path) -> None:
    records: list[RouterRecord] = list(read_router_records(recorded(tmp_path)))
    header = records[0]
    assert isinstance(header, RouterHeader)
    changed = RouterHeader(
        **{name: getattr(header, name) for name in header.__struct_fields__} | {"config": header.config | {"learning_rate": 0.03}}
    )
    assert replay([changed, *records[1:]]).mismatches > 100


def test_a_changed_input_is_noticed(tmp_path: Path) -> None:
    records = list(read_router_records(recorded(tmp_path)))
    place = next(i for i, record in enumerate(records) if isinstance(record, Picked))
    picked = records[place]
    assert isinstance(picked, Picked)
    router = router_of(records[0])  # type: ignore[arg-type]
    for record in records[1:place]:
        assert repeat(router, record)
    values = {name: getattr(picked, name) for name in picked.__struct_fields__}
    assert not repeat(router, Picked(**values | {"history_tokens": picked.history_tokens + 64}))


def test_a_journal_cut_off_by_a_kill_replays_up_to_there(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    result = replay(read_router_records(path))
    assert result.picks > 100
    assert result.mismatches == 0


def test_damage_and_a_missing_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="a record of"):
        list(read_router_records(path))
    path.write_bytes(b"\x00\x00\x00\x02\xc1\xc1")
    with pytest.raises(ValueError, match="does not decode"):
        list(read_router_records(path))
    path.write_bytes(encode_router_record(End(reason="closed")))
    with pytest.raises(ValueError, match="header"):
        replay(read_router_records(path))


def test_old_journals_make_room(tmp_path: Path) -> None:
    for i in range(6):
        RecordingRouter(["a"], SMALL, 1, tmp_path, "router", i).journal.close()
    assert len(list(tmp_path.iterdir())) == 4
