"""What a node announced reads as a sentence, and no fact of it can break the feed."""

import pytest

from apps.telemetry.sentences import sentence
from tests.apps.frames import event

DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("kind", "facts", "told"),
    [
        ("node_draining", {}, "node-0 is draining"),
        ("override_applied", {"emb_ratio": "0.700", "reason": "trying it"}, "node-0 holds at 0.700, overridden"),
        ("override_expired", {}, "node-0 decides by itself again: its override ran out"),
        ("pin_applied", {"emb_ratio": "0.400", "reason": ""}, "node-0 holds at 0.400, pinned"),
        ("released", {}, "node-0 decides by itself again"),
        ("ratio_moved", {"from": "0.500", "to": "0.400"}, "node-0 moves its split from 0.500 to 0.400"),
        ("recovery_started", {"emb_ratio": "0.380"}, "node-0 saw a burst begin and asks for 0.380"),
        ("recovery_ended", {"emb_ratio": "0.450"}, "node-0 saw the burst end and asks for 0.450"),
        ("policy_switched", {"policy_digest": DIGEST}, "node-0 decides by policy abababababab"),
        ("policy_switched", {"policy_digest": ""}, "node-0 decides by its own controller"),
        (
            "policy_refused",
            {"policy_digest": DIGEST, "reason": "NotTaken", "detail": "features do not match"},
            "node-0 did not take policy abababababab: features do not match",
        ),
        ("policy_demoted", {"base": "helm", "regret_ms": "312"}, "node-0 decides by its shadow: helm fell 312 ms behind it"),
    ],
)
def test_an_event_is_a_sentence_about_the_node(kind: str, facts: dict[str, str], told: str) -> None:
    assert sentence("node-0", event(kind, **facts)) == told


def test_a_kind_this_control_plane_does_not_know_yet_still_gets_a_line() -> None:
    told = sentence("node-0", event("moon_landed", where="tranquility", policy_digest=DIGEST, reason="shown beside it"))
    assert told == "node-0 says: moon landed (policy_digest=abababababab where=tranquility)"


def test_an_event_that_lacks_its_facts_lists_those_it_has() -> None:
    assert sentence("node-0", event("ratio_moved", to="0.52")) == "node-0 says: ratio moved (to=0.52)"
    assert sentence("node-0", event("override_applied")) == "node-0 says: override applied"
