"""What a node announced, as one sentence for the event feed."""

from collections.abc import Callable, Mapping

from agents.wire.events import EventKind
from agents.wire.messages import EventFrame

DIGEST_SHOWN = 12  # letters: as much of a digest as tells versions apart

Facts = Mapping[str, str]


def sentence(node_name: str, frame: EventFrame) -> str:
    """One sentence about `node_name`; a kind without words of its own, or one whose facts are missing, lists what it came with.

    A reason is left out: it is shown beside the sentence.
    """
    words = _WORDS.get(frame.kind)
    try:
        told = words(frame.detail) if words is not None else _listed(frame)
    except KeyError:
        told = _listed(frame)
    return f"{node_name} {told}"


def _listed(frame: EventFrame) -> str:
    shown = {key: value[:DIGEST_SHOWN] if key == "policy_digest" else value for key, value in frame.detail.items() if key != "reason"}
    facts = " ".join(f"{key}={value}" for key, value in sorted(shown.items()))
    return f"says: {frame.kind.replace('_', ' ')}" + (f" ({facts})" if facts else "")


def _policy(facts: Facts) -> str:
    digest = facts["policy_digest"]
    return f"policy {digest[:DIGEST_SHOWN]}" if digest else "its own controller"


_WORDS: dict[str, Callable[[Facts], str]] = {
    EventKind.NODE_DRAINING: lambda facts: "is draining",
    EventKind.OVERRIDE_APPLIED: lambda facts: f"holds at {facts['emb_ratio']}, overridden",
    EventKind.OVERRIDE_EXPIRED: lambda facts: "decides by itself again: its override ran out",
    EventKind.PIN_APPLIED: lambda facts: f"holds at {facts['emb_ratio']}, pinned",
    EventKind.RELEASED: lambda facts: "decides by itself again",
    EventKind.RATIO_MOVED: lambda facts: f"moves its split from {facts['from']} to {facts['to']}",
    EventKind.RECOVERY_STARTED: lambda facts: f"saw a burst begin and asks for {facts['emb_ratio']}",
    EventKind.RECOVERY_ENDED: lambda facts: f"saw the burst end and asks for {facts['emb_ratio']}",
    EventKind.POLICY_SWITCHED: lambda facts: f"decides by {_policy(facts)}",
    EventKind.POLICY_REFUSED: lambda facts: f"did not take {_policy(facts)}: {facts['detail']}",
    EventKind.POLICY_DEMOTED: lambda facts: f"decides by its shadow: {facts['base']} fell {facts['regret_ms']} ms behind it",
}
