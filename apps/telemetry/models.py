"""Points of a node's history at four resolutions, and the decisions of its controller."""

from django.db import models

from apps.fleet.models import Node


class Point(models.Model):
    """One bucket of one node. `at_seconds` is the unix time its bucket begins, by the control plane's clock.

    `sketch` is the node's latency sketch (msgpack of indexes and counts): up to one minute it is the last
    one of the bucket, since each already slides over 60 s; above, minutes are merged.
    """

    node = models.ForeignKey(Node, on_delete=models.CASCADE)
    resolution_seconds = models.PositiveSmallIntegerField()
    at_seconds = models.BigIntegerField()
    mode = models.CharField(max_length=16)
    emb_ratio = models.FloatField(null=True)
    target_emb_ratio = models.FloatField(null=True)
    recommended_emb_ratio = models.FloatField(null=True)
    emb_hit_ratio = models.FloatField(null=True)
    kv_hit_ratio = models.FloatField(null=True)
    latency_ms_p50 = models.FloatField(null=True)
    latency_ms_p99 = models.FloatField(null=True)
    slo_ms = models.FloatField(null=True)
    slo_ratio = models.FloatField(null=True)
    requests_per_second = models.FloatField(null=True)
    queue_depth = models.FloatField(null=True)
    utilisation = models.FloatField(null=True)
    queue_ms = models.FloatField(null=True)
    emb_ms = models.FloatField(null=True)
    kv_ms = models.FloatField(null=True)
    compute_ms = models.FloatField(null=True)
    refill_backlog_bytes = models.FloatField(null=True)
    migrating_bytes = models.FloatField(null=True)
    sketch = models.BinaryField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["node", "resolution_seconds", "at_seconds"], name="point_once")]
        indexes = [models.Index(fields=["resolution_seconds", "at_seconds"], name="point_time")]


class Decision(models.Model):
    """One decision of a node's controller, in full for a day; afterwards only those that moved."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE)
    at = models.DateTimeField()
    seq = models.BigIntegerField()
    moved = models.BooleanField()
    record = models.JSONField()  # agents.wire.messages.DecisionRecord, as builtins

    class Meta:
        indexes = [models.Index(fields=["node", "-id"], name="decision_node"), models.Index(fields=["at"], name="decision_at")]
