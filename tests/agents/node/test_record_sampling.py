import msgspec

from agents.node.record_sampling import RecordSampling
from agents.wire.messages import Mode
from tests.apps.frames import decision

SECOND = 1_000_000_000


def test_of_decisions_that_change_nothing_one_in_five_seconds_is_sent() -> None:
    sampling = RecordSampling()
    records = [msgspec.structs.replace(decision(), at_unix_ns=second * SECOND) for second in range(12)]
    assert [second for second, record in enumerate(records) if sampling.wanted(record)] == [0, 5, 10]


def test_whatever_changes_something_is_sent_at_once() -> None:
    sampling, still = RecordSampling(), decision()
    assert sampling.wanted(still)
    for changes in ({"emb_ratio_granted": 0.52}, {"mode": Mode.RECOVERY}, {"guard_reasons": ["dwell"]}):
        assert sampling.wanted(msgspec.structs.replace(still, **changes))
