"""Clusters, nodes (what they should do), their status (what they said last), and enrolment tokens."""

import uuid

from django.db import models

from agents.wire.messages import ControllerMode, Mode


class Cluster(models.Model):
    """One fleet with its guard rails and limits. Operators' tunables are rows, not settings."""

    name = models.CharField(max_length=63, unique=True)
    emb_ratio_min = models.FloatField(default=0.10)
    emb_ratio_max = models.FloatField(default=0.90)
    step_ratio_max = models.FloatField(default=0.10)
    dead_band_ratio = models.FloatField(default=0.01)
    dwell_seconds_min = models.FloatField(default=5.0)
    override_ttl_seconds_min = models.PositiveIntegerField(default=5)
    override_ttl_seconds_max = models.PositiveIntegerField(default=12 * 3600)  # a shift: longer is a pin, and should say so
    created_at = models.DateTimeField(auto_now_add=True)


class Node(models.Model):
    """A node's desired state. `generation` fences commands; `resource_version` is the ETag."""

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="nodes")
    name = models.CharField(max_length=63, unique=True)
    profile = models.CharField(max_length=64)
    infer_url = models.CharField(max_length=255)
    credential_digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField()
    enrolled_at = models.DateTimeField()

    mode = models.CharField(
        max_length=16, choices=[(m.value, m.value) for m in (Mode.AUTO, Mode.OVERRIDE, Mode.PIN)], default=Mode.AUTO.value
    )
    controller = models.CharField(max_length=16, choices=[(m.value, m.value) for m in ControllerMode], default=ControllerMode.ACTIVE.value)
    emb_ratio = models.FloatField(null=True)
    reason = models.CharField(max_length=200, blank=True)
    actor = models.CharField(max_length=150, blank=True)
    expires_at = models.DateTimeField(null=True)
    policy_digest = models.CharField(max_length=64, blank=True)
    policy_generation = models.PositiveBigIntegerField(default=0)  # in which somebody last said who decides
    pool_bytes = models.PositiveBigIntegerField(null=True)  # null: all that the node's profile has
    generation = models.PositiveBigIntegerField(default=1)
    resource_version = models.PositiveBigIntegerField(default=1)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(mode="auto", emb_ratio__isnull=True) | models.Q(mode__in=["override", "pin"], emb_ratio__isnull=False),
                name="node_ratio_by_mode",
            ),
            models.CheckConstraint(
                condition=models.Q(mode="override", expires_at__isnull=False) | models.Q(expires_at__isnull=True), name="node_override_ends"
            ),
        ]


class NodeStatus(models.Model):
    """A node's observed state: its last frame, and whether its link stands. Written once a second."""

    node = models.OneToOneField(Node, on_delete=models.CASCADE, related_name="status", primary_key=True)
    frame = models.JSONField(null=True)  # agents.wire.messages.NodeTelemetry, as builtins
    received_at = models.DateTimeField(null=True)  # by our clock: ages never compare two machines' clocks
    observed_generation = models.PositiveBigIntegerField(default=0)
    acked_generation = models.PositiveBigIntegerField(default=0)
    refusal = models.JSONField(null=True)  # {generation, code, detail} of the last refused command
    link_id = models.CharField(max_length=32, blank=True)  # the connection that speaks for the node; empty: none
    link_changed_at = models.DateTimeField(null=True)
    announced_online = models.BooleanField(default=False)  # what the feed was last told
    device = models.CharField(max_length=64, blank=True)
    emulated = models.BooleanField(default=False)
    rejected_frames_total = models.PositiveBigIntegerField(default=0)


class EnrolmentToken(models.Model):
    """A one-time way into the cluster, of which only the SHA-256 is kept."""

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE)
    digest = models.CharField(max_length=64, unique=True)
    node_name = models.CharField(max_length=63, blank=True)  # bound to one name: may also renew that node's credential
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)
    used_by = models.CharField(max_length=63, blank=True)
