"""Which decisions are worth sending to the control plane: all that changed something, and one of the rest every few seconds."""

from agents.wire.messages import DecisionRecord

PERIOD_NS = 5_000_000_000  # the slowest method's period: a learned controller looks five times as often


class RecordSampling:
    """Remembers the last record that was sent."""

    def __init__(self) -> None:
        self._sent: DecisionRecord | None = None

    def wanted(self, record: DecisionRecord) -> bool:
        """Whether to send this one; if so it is the new last."""
        last = self._sent
        news = (
            last is None
            or record.at_unix_ns - last.at_unix_ns >= PERIOD_NS
            or record.emb_ratio_granted != last.emb_ratio_granted
            or record.mode is not last.mode
            or record.guard_reasons != last.guard_reasons
        )
        if news:
            self._sent = record
        return news
