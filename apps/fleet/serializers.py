"""Shapes of the fleet's requests and answers."""

import re
from typing import Any

from rest_framework import serializers

from agents.wire.messages import Condition, ControllerMode, GuardRails, Mode, NodeTelemetry, Phase
from apps.fleet.enrolment import TTL_SECONDS_DEFAULT, TTL_SECONDS_MAX
from apps.fleet.lifecycle import Verb
from apps.lib.parsing import FiniteFloatField, StrictIntegerField, StrictSerializer
from apps.lib.wire_serializers import serializer_of

REASON_LENGTH_MIN, REASON_LENGTH_MAX = 3, 200


def _modes(*modes: Mode) -> list[str]:
    return [mode.value for mode in modes]


def node_name_field(**options: Any) -> serializers.RegexField:
    """A node's name: lower case letters, digits, dots and dashes."""
    return serializers.RegexField(re.compile(r"\A[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?\Z"), max_length=63, **options)


def reason_field() -> serializers.CharField:
    """Why somebody does this; read by whoever looks at the audit log at night."""
    return serializers.CharField(min_length=REASON_LENGTH_MIN, max_length=REASON_LENGTH_MAX)


class OverrideRequest(StrictSerializer):
    """A fixed ratio with an end."""

    emb_ratio = FiniteFloatField(help_text="Share of the pool for embedding rows, 0..1, inside the guard rails.")
    ttl_seconds = StrictIntegerField(help_text="The node goes back to its controller by itself after this long.")
    reason = reason_field()


class PinRequest(StrictSerializer):
    """A fixed ratio until released; without a ratio the present one is held."""

    emb_ratio = FiniteFloatField(required=False)
    reason = reason_field()


class ReleaseRequest(StrictSerializer):
    """Give the node back to its controller."""

    reason = reason_field()


class ResizeRequest(StrictSerializer):
    """Another size of the pool; it stands until it is changed, whoever sets the split."""

    pool_bytes = StrictIntegerField(
        allow_null=True, help_text="Rounded down to whole pages; null gives the node back all that its profile has."
    )
    reason = reason_field()


class EnrolmentRequest(StrictSerializer):
    """Make a one-time token, for one node name or for any new node."""

    node_name = node_name_field(required=False, default="")
    ttl_seconds = StrictIntegerField(required=False, default=TTL_SECONDS_DEFAULT, min_value=60, max_value=TTL_SECONDS_MAX)


class EnrolmentDocument(serializers.Serializer[Any]):
    """The token, shown once."""

    token = serializers.CharField()
    node_name = serializers.CharField(allow_blank=True)
    expires_at = serializers.DateTimeField()


class EnrolRequest(StrictSerializer):
    """A node spends its token."""

    token = serializers.CharField(max_length=256)
    name = node_name_field()
    profile = serializers.CharField(max_length=64)
    infer_url = serializers.URLField(max_length=255, help_text="Where this node serves the inference protocol.")


class EnrolDocument(serializers.Serializer[Any]):
    """The node's link credential, shown once."""

    credential = serializers.CharField()
    name = serializers.CharField()
    uid = serializers.CharField()


class ClusterDocument(serializers.Serializer[Any]):
    """A cluster with its limits."""

    name = serializers.CharField()
    nodes_total = serializers.IntegerField()
    guard_rails = serializer_of(GuardRails, "GuardRails")()
    override_ttl_seconds_min = serializers.IntegerField()
    override_ttl_seconds_max = serializers.IntegerField()
    created_at = serializers.DateTimeField()


class NodeMetadata(serializers.Serializer[Any]):
    """Who the node is, and which version of its spec this is."""

    name = serializers.CharField()
    uid = serializers.CharField()
    cluster = serializers.CharField()
    generation = serializers.IntegerField()
    resource_version = serializers.IntegerField()
    created_at = serializers.DateTimeField()


class NodeSpecDocument(serializers.Serializer[Any]):
    """What the node should do."""

    mode = serializers.ChoiceField(choices=_modes(Mode.AUTO, Mode.OVERRIDE, Mode.PIN))
    controller = serializers.ChoiceField(choices=[mode.value for mode in ControllerMode])
    emb_ratio = serializers.FloatField(allow_null=True)
    reason = serializers.CharField(allow_blank=True)
    actor = serializers.CharField(allow_blank=True)
    expires_at = serializers.DateTimeField(allow_null=True)
    ttl_remaining_seconds = serializers.FloatField(allow_null=True)
    guard_rails = serializer_of(GuardRails, "GuardRails")()
    policy_digest = serializers.CharField(allow_blank=True)
    pool_bytes = serializers.IntegerField(allow_null=True, help_text="Size of the pool; null: all that the profile has.")
    pool_bytes_min = serializers.IntegerField(allow_null=True, help_text="Null where this version does not know the profile.")
    pool_bytes_max = serializers.IntegerField(allow_null=True)
    profile = serializers.CharField()
    infer_url = serializers.CharField()


ConditionDocument = serializer_of(
    Condition,
    "Condition",
    leave_out=frozenset({"last_transition_unix_ns"}),
    last_transition_at=serializers.DateTimeField(allow_null=True),
)
TelemetryDocument = serializer_of(
    NodeTelemetry,
    "NodeTelemetry",
    leave_out=frozenset({"sketch", "conditions", "at_unix_ns", "landscape"}),
    at=serializers.DateTimeField(),
    landscape=serializers.ListField(
        child=serializers.ListField(child=serializers.FloatField(), min_length=5, max_length=5),
        help_text="Latency the node predicts over the splits, rows of [emb_ratio, mean_ms, p99_ms, low_ms, high_ms] with the 95 % "
        "interval of the mean; empty while it cannot say, and in lists of nodes.",
    ),
)


class NodeStatusDocument(serializers.Serializer[Any]):
    """What the node does, as far as is known; `age_seconds` says how fresh that is."""

    phase = serializers.ChoiceField(choices=[phase.value for phase in Phase])
    mode = serializers.ChoiceField(choices=[mode.value for mode in Mode], allow_null=True)
    emb_ratio = serializers.FloatField(allow_null=True)
    target_emb_ratio = serializers.FloatField(allow_null=True)
    observed_generation = serializers.IntegerField()
    conditions = ConditionDocument(many=True)
    telemetry = TelemetryDocument(allow_null=True)
    age_seconds = serializers.FloatField(allow_null=True)
    rejected_frames_total = serializers.IntegerField()


class AllowedAction(serializers.Serializer[Any]):
    """A verb, whether the caller may use it now, and why not."""

    action = serializers.ChoiceField(choices=[verb.value for verb in Verb])
    allowed = serializers.BooleanField()
    reason = serializers.CharField(allow_blank=True)


class NodeDocument(serializers.Serializer[Any]):
    """A node: metadata, spec, status and what the caller may do."""

    metadata = NodeMetadata()
    spec = NodeSpecDocument()
    status = NodeStatusDocument()
    allowed_actions = AllowedAction(many=True)


class Predicted(serializers.Serializer[Any]):
    """The node's own prediction at a ratio, with its interval."""

    latency_ms_mean = serializers.FloatField()
    latency_ms_p99 = serializers.FloatField()
    latency_ms_low = serializers.FloatField()
    latency_ms_high = serializers.FloatField()


class SplitDocument(serializers.Serializer[Any]):
    """What a share of the pool holds."""

    pool_bytes = serializers.IntegerField()
    emb_ratio = serializers.FloatField()
    emb_bytes = serializers.IntegerField()
    kv_bytes = serializers.IntegerField()
    emb_rows = serializers.IntegerField()
    kv_users = serializers.IntegerField()
    predicted = Predicted(allow_null=True)


class ChangeDocument(serializers.Serializer[Any]):
    """What lies between two splits."""

    moved_bytes = serializers.IntegerField(help_text="Changes its owner: between the caches, or into and out of the pool.")
    emb_rows = serializers.IntegerField()
    kv_users = serializers.IntegerField()
    refill_gib = serializers.FloatField()
    move_seconds = serializers.FloatField(allow_null=True, help_text="Null with another size of the pool: pages go as they come free.")


class PreviewDocument(serializers.Serializer[Any]):
    """A wish's price tag (`?dry_run=true`)."""

    before = SplitDocument()
    after = SplitDocument()
    change = ChangeDocument()
    warnings = serializers.ListField(child=serializers.ChoiceField(choices=["slower_than_now", "over_slo"]))
