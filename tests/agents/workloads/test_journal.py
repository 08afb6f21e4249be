"""The journal's format: what goes in comes out, damage is noticed, digests see every byte."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agents.wire.messages import ControlRequest, DecisionRecord, Mode
from agents.workloads import journal

HEADER = journal.Header(
    journal_version=journal.JOURNAL_VERSION, wire_version=1, name="n", profile="p", config={"seed": 3}, salt_digest="d", started_unix_ns=5
)


def decision(**changes: object) -> DecisionRecord:
    fields = {
        "name": "n",
        "at_unix_ns": 1,
        "seq": 1,
        "controller": "b5",
        "mode": Mode.AUTO,
        "emb_ratio_before": 0.5,
        "emb_ratio_proposed": 0.6,
        "emb_ratio_granted": 0.55,
        "reason": "gain",
        "guard_reasons": ["step"],
        "shadow_emb_ratio": None,
        "features": {},
        "layers": {},
        "decision_us": 1.0,
    }
    return DecisionRecord(**{**fields, **changes})  # type: ignore[arg-type]


@given(
    hnp.arrays(
        st.sampled_from([np.int8, np.int32, np.int64, np.uint64, np.float64, np.float32, np.bool_]),
        st.integers(0, 20),
    )
)
def test_an_array_comes_back_as_it_was(array: np.ndarray) -> None:  # type: ignore[type-arg]
    back = journal.unpack(journal.pack(array))
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("values", "stored"),
    [([0, 127], "int8"), ([0, 128], "int16"), ([-32_768], "int16"), ([399_999], "int32"), ([2**31], "int64"), ([], "int64")],
)
def test_integers_are_stored_as_narrow_as_they_fit(values: list[int], stored: str) -> None:
    assert journal.pack(np.array(values, np.int64)).stored == stored


def test_records_are_read_in_order(tmp_path: Path) -> None:
    records: list[journal.Record] = [
        HEADER,
        journal.MovesDone(now_ns=1, serial=2),
        journal.Control(now_ns=2, request=ControlRequest(mode=Mode.PIN, emb_ratio=0.5, reason="r"), error_code="invalid_request"),
        journal.RefillCommit(now_ns=3, rows=journal.pack(np.array([1, 2], np.int64)), digest=2**64 - 1),
        journal.End(reason="closed"),
    ]
    path = tmp_path / "a.journal"
    path.write_bytes(b"".join(journal.encode_record(record) for record in records))
    assert list(journal.read_records(path)) == records
    assert journal.read_header(path) == HEADER


@pytest.mark.parametrize("cut", [1, 3, 5, 10])
def test_a_file_cut_off_by_a_kill_ends_before_the_broken_record(tmp_path: Path, cut: int) -> None:
    whole = journal.encode_record(HEADER) + journal.encode_record(journal.MovesDone(now_ns=1, serial=2))
    path = tmp_path / "a.journal"
    path.write_bytes(whole[:-cut])
    assert list(journal.read_records(path)) == [HEADER]


def test_damage_in_the_middle_is_an_error_with_its_offset(tmp_path: Path) -> None:
    first = journal.encode_record(HEADER)
    path = tmp_path / "a.journal"
    path.write_bytes(first + journal.LENGTH.pack(3) + b"\xc1\xc1\xc1" + journal.encode_record(journal.End(reason="closed")))
    with pytest.raises(ValueError, match=f"offset {len(first)}"):
        list(journal.read_records(path))


def test_a_length_beyond_all_reason_is_an_error_and_not_an_allocation(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    path.write_bytes(journal.LENGTH.pack(2**32 - 1) + b"x")
    with pytest.raises(ValueError, match="4294967295 bytes"):
        list(journal.read_records(path))


def test_a_journal_without_header_or_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    path.write_bytes(journal.encode_record(journal.End(reason="closed")))
    with pytest.raises(ValueError, match="header"):
        journal.read_header(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="header"):
        journal.read_header(path)
    other = journal.Header(**{name: getattr(HEADER, name) for name in HEADER.__struct_fields__} | {"journal_version": 99})
    path.write_bytes(journal.encode_record(other))
    with pytest.raises(ValueError, match="version 99"):
        journal.read_header(path)


def test_the_parts_of_a_run_are_read_as_one_and_each_is_known_by_its_name(tmp_path: Path) -> None:
    first = tmp_path / "17.journal"
    for part in (1, 2, 3):
        end = journal.End(reason=journal.CONTINUED if part < 3 else "closed")
        moved = journal.MovesDone(now_ns=part, serial=part)
        header = msgspec.structs.replace(HEADER, part=part)
        journal.part_path(first, part).write_bytes(b"".join(map(journal.encode_record, (header, moved, end))))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["17.journal", "17.p2.journal", "17.p3.journal"]
    assert [journal.part_of(path) for path in sorted(tmp_path.iterdir())] == [(first, 1), (first, 2), (first, 3)]
    read = [HEADER, *(journal.MovesDone(now_ns=part, serial=part) for part in (1, 2, 3)), journal.End(reason="closed")]
    assert list(journal.read_run(first)) == read
    journal.part_path(first, 2).unlink()
    assert list(journal.read_run(first)) == [*read[:2], journal.End(reason="continued")]


def test_digests_see_values_types_and_borders() -> None:
    base = journal.digest([np.array([1, 2], np.int64), np.array([3], np.int64)])
    assert base == journal.digest([np.array([1, 2], np.int64), np.array([3], np.int64)])
    assert base != journal.digest([np.array([1], np.int64), np.array([2, 3], np.int64)])
    assert base != journal.digest([np.array([1, 2], np.int64), np.array([4], np.int64)])
    assert base != journal.digest([np.array([1, 2], np.int32), np.array([3], np.int64)])
    assert 0 <= base < 2**64


def test_effects_digests_see_decisions_but_not_the_wall_clock() -> None:
    rows = [np.array([1, 2], np.int64)]
    base = journal.effects_digest(rows, [decision()])
    assert base == journal.effects_digest(rows, [decision(at_unix_ns=99, decision_us=7.0)])
    for changes in ({"emb_ratio_granted": 0.56}, {"reason": "loss"}, {"guard_reasons": []}, {"mode": Mode.PIN}):
        assert base != journal.effects_digest(rows, [decision(**changes)])
    assert base != journal.effects_digest(rows, [])
    assert base != journal.effects_digest([np.array([1, 3], np.int64)], [decision()])
