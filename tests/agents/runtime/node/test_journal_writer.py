"""Recording a node: every changing call once, in order, replayable; bounded in memory and on disk."""

import stat
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agents.node.batch import Batch, StageTimings
from agents.node.node import Node, NodeConfig, TickInputs
from agents.runtime.journal_writer import JournalWriter, RecordingNode, header_of, make_room
from agents.runtime.ranking import batch_of
from agents.wire.errors import WireError
from agents.wire.messages import ClusterReuse, ControlRequest, GuardRails, Mode, NodeSpec, VersionPart
from agents.workloads import journal
from tests.agents.controller.policies import card, random_file
from tests.agents.runtime.node.parts import PATIENCE_SECONDS, request_of, tiny_profile

SECOND = 1_000_000_000
PROFILE = tiny_profile()
CONFIG = NodeConfig(admission="none", seed=4, guard_rails=GuardRails(emb_ratio_min=0.2))
POLICY = random_file(card())
REUSE = ClusterReuse(
    router_id="r",
    at_unix_ns=1,
    nodes=1,
    requests_per_second=10.0,
    sampling_rate=1.0,
    edges_tokens=[0.0, 100.0],
    references_per_second=[1.0, 2.0],
    tokens_per_second=[8.0, 0.0],
    tokens_squared_per_second=[64.0, 0.0],
)


def header() -> journal.Header:
    return header_of("node-0", PROFILE.name, CONFIG, b"salt", 5)


def live_a_little(node: Any) -> None:
    """Serve, fail, move, refill, obey and refuse: each entry of the brain at least once."""
    generator = np.random.default_rng(7)
    for step in range(120):
        now_ns = step * SECOND // 5
        users = generator.choice(12, 2, replace=False) + 1
        ticket, _ = node.admit(now_ns, batch_of([request_of(int(user), tokens=8 + step % 9, candidates=8) for user in users]))
        if step % 17 == 5:
            node.abort(now_ns, ticket)
        else:
            timings = generator.random(5) * 10
            node.complete(now_ns, ticket, StageTimings(timings[:2], timings[2], timings[3], timings[:2], timings[4]))
        if step % 30 == 10:
            node.control(now_ns, ControlRequest(mode=Mode.PIN, emb_ratio=0.25 if step % 60 == 10 else 0.75, reason="swing"))
        if step in (50, 90):
            node.control(now_ns, ControlRequest(mode=Mode.AUTO, pool_bytes=PROFILE.pool_bytes * (3 if step == 50 else 4) // 4))
        if step == 40:
            node.use_policy(POLICY.weights, POLICY.card)
        if step == 80:
            node.use_own_controller()
        effects = node.tick(now_ns, TickInputs(1, 2.0, 3, 0))
        node.moves_done(now_ns, effects.serial)
        node.refill_commit(now_ns, effects.refill_rows[:10])
    node.reuse(now_ns, REUSE)
    node.apply(now_ns, NodeSpec(generation=3))
    for refused in (lambda: node.apply(now_ns, NodeSpec(generation=2)), lambda: node.control(now_ns, ControlRequest(mode=Mode.PIN))):
        with pytest.raises(WireError):
            refused()
    node.version_flip(now_ns)
    node.version_flip(now_ns, VersionPart.FEATURES)


def record(path: Path) -> Node:
    node = Node("node-0", PROFILE, CONFIG)
    writer = JournalWriter(path, header())
    live_a_little(RecordingNode(node, writer))
    writer.close()
    return node


def replay(path: Path) -> tuple[Node, int]:
    """Make the recorded calls on a fresh node and compare every digest; returns the node and how many were compared."""
    first = journal.read_header(path)
    rails = msgspec.convert(first.config["guard_rails"], GuardRails)
    node = Node(first.name, PROFILE, NodeConfig(**{**first.config, "guard_rails": rails}))
    compared = 0
    for entry in journal.read_run(path):
        match entry:
            case journal.Admit():
                ticket, plan = node.admit(entry.now_ns, Batch(*(journal.unpack(part) for part in entry.batch)))
                assert (ticket, journal.digest(plan)) == (entry.ticket, entry.digest)
                compared += 1
            case journal.Complete():
                parts = (journal.unpack(entry.queue_ms), entry.emb_ms, entry.kv_ms, journal.unpack(entry.compute_ms), entry.service_ms)
                node.complete(entry.now_ns, entry.ticket, StageTimings(*parts))
            case journal.Abort():
                node.abort(entry.now_ns, entry.ticket)
            case journal.Tick():
                inputs = TickInputs(entry.queue_depth, entry.queued_ms, entry.refill_backlog_bytes, entry.failures)
                effects = node.tick(entry.now_ns, inputs)
                outcome = journal.effects_digest((*effects.moves, effects.refill_rows), effects.records)
                assert (effects.serial, outcome) == (entry.serial, entry.digest)
                assert (node.ledger.emb_ratio, node.evictions()) == (entry.emb_ratio, entry.evictions_total)
                compared += 1
            case journal.MovesDone():
                node.moves_done(entry.now_ns, entry.serial)
            case journal.RefillCommit():
                assert journal.digest((node.refill_commit(entry.now_ns, journal.unpack(entry.rows)),)) == entry.digest
                compared += 1
            case journal.Reuse():
                node.reuse(entry.now_ns, entry.message)
            case journal.VersionFlip():
                node.version_flip(entry.now_ns, entry.part)
            case journal.UsePolicy(weights=weights, card=card) if weights:
                node.use_policy(weights, card)
            case journal.UsePolicy():
                node.use_own_controller()
            case journal.Apply() | journal.Control():
                _replay_command(node, entry)
    return node, compared


def _replay_command(node: Node, entry: journal.Apply | journal.Control) -> None:
    try:
        if isinstance(entry, journal.Apply):
            node.apply(entry.now_ns, entry.spec)
        else:
            node.control(entry.now_ns, entry.request)
    except WireError as error:
        assert error.code == entry.error_code
    else:
        assert entry.error_code == ""


def test_a_recorded_life_replays_to_the_same_digests_and_the_same_pool(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    lived = record(path)
    again, compared = replay(path)
    assert compared == 120 * 3
    for mine, theirs in zip(lived.state, again.state, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_each_call_is_recorded_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    record(path)
    records = list(journal.read_records(path))
    counts = Counter(type(entry).__name__ for entry in records)
    assert counts == {
        "Header": 1,
        "Admit": 120,
        "Complete": 113,
        "Abort": 7,
        "Tick": 120,
        "MovesDone": 120,
        "RefillCommit": 120,
        "Control": 7,
        "Reuse": 1,
        "Apply": 2,
        "VersionFlip": 2,
        "UsePolicy": 2,
        "End": 1,
    }
    times = [entry.now_ns for entry in records[1:-1] if not isinstance(entry, journal.UsePolicy)]  # type: ignore[union-attr]
    assert times == sorted(times)
    ticks = [entry for entry in records if isinstance(entry, journal.Tick)]
    assert ticks[-1].moved_pages_total >= 10
    assert ticks[-1].evictions_total > 0
    codes = [entry.error_code for entry in records if isinstance(entry, journal.Apply | journal.Control)]
    assert codes == [*[""] * 7, "stale_generation", "invalid_request"]


def test_the_header_has_the_configuration_and_not_the_salt(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    record(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = journal.read_header(path)
    assert (first.name, first.profile, first.config["seed"], first.config["admission"]) == ("node-0", "tiny", 4, "none")
    assert b"salt".hex() not in first.salt_digest
    assert header_of("node-0", "tiny", CONFIG, b"other", 5).salt_digest != first.salt_digest


def test_a_journal_at_its_limit_goes_on_in_the_next_file_and_the_parts_in_a_row_replay(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    node = Node("node-0", PROFILE, CONFIG)
    writer = JournalWriter(path, header(), part_bytes=20_000)
    live_a_little(RecordingNode(node, writer))
    writer.close()
    parts = sorted(tmp_path.iterdir(), key=lambda part: journal.part_of(part)[1])
    assert len(parts) > 2
    assert [part.name for part in parts] == ["a.journal", *(f"a.p{number}.journal" for number in range(2, len(parts) + 1))]
    assert all(part.stat().st_size < 21_000 for part in parts)
    assert [journal.read_header(part).part for part in parts] == list(range(1, len(parts) + 1))
    ends = [list(journal.read_records(part))[-1] for part in parts]
    assert ends == [journal.End(reason="continued")] * (len(parts) - 1) + [journal.End(reason="closed")]
    whole, compared = replay(path)
    assert compared > 100
    assert whole.evictions() == node.evictions()


def test_a_record_larger_than_a_part_has_one_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    writer = JournalWriter(path, header(), part_bytes=10)
    for serial in range(3):
        writer.put(lambda serial=serial: journal.MovesDone(now_ns=serial, serial=serial))  # type: ignore[misc]
    writer.close()
    assert [record.serial for record in journal.read_run(path) if isinstance(record, journal.MovesDone)] == [0, 1, 2]
    assert len(list(tmp_path.iterdir())) == 4  # the first one had no room behind its header


def test_the_newest_parts_stay_where_a_folder_is_full(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    writer = JournalWriter(path, header(), part_bytes=20_000, folder_bytes=60_000)
    live_a_little(RecordingNode(Node("node-0", PROFILE, CONFIG), writer))
    assert writer.recording
    writer.close()
    left = sorted(journal.part_of(part)[1] for part in tmp_path.iterdir())
    assert left[0] > 1
    assert left == list(range(left[0], left[-1] + 1))
    assert sum(part.stat().st_size for part in tmp_path.iterdir()) <= 63_000


def test_a_writer_that_falls_behind_ends_the_journal_instead_of_leaving_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.runtime.journal_writer.PENDING_RECORDS_MAX", 3)
    writer = JournalWriter(tmp_path / "a.journal", header())
    disk = threading.Event()

    def slow() -> journal.Record:
        assert disk.wait(PATIENCE_SECONDS)
        return journal.MovesDone(now_ns=0, serial=0)

    writer.put(slow)
    for serial in range(1, 20):
        writer.put(lambda serial=serial: journal.MovesDone(now_ns=serial, serial=serial))  # type: ignore[misc]
    assert not writer.recording
    disk.set()
    writer.close()
    records = list(journal.read_records(tmp_path / "a.journal"))
    serials = [entry.serial for entry in records if isinstance(entry, journal.MovesDone)]
    assert serials == list(range(len(serials)))
    assert len(serials) < 20
    assert records[-1] == journal.End(reason="writer_overrun")


def test_the_oldest_files_make_room(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.journal").write_bytes(b"x" * 100)
    assert [path.name for path in make_room(tmp_path, 250)] == ["0.journal", "1.journal"]
    assert make_room(tmp_path, 250) == []


def test_a_journal_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    record(path)
    with pytest.raises(FileExistsError):
        JournalWriter(path, header())


def test_a_disk_that_fails_ends_the_journal_and_not_the_node(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    writer = JournalWriter(path, header())

    def full_disk() -> journal.Record:
        raise OSError("no space left on device")

    writer.put(full_disk)
    live_a_little(RecordingNode(Node("node-0", PROFILE, CONFIG), writer))
    writer.close()
    assert not writer.recording
    assert [type(entry) for entry in journal.read_records(path)] == [journal.Header]
