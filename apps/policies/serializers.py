"""Shapes of requests and answers about policies."""

from typing import Any

from rest_framework import serializers

from agents.artifacts.policy_file import BYTES_MAX
from agents.wire.messages import ControllerMode
from apps.fleet.serializers import node_name_field, reason_field
from apps.lib.parsing import StrictSerializer
from apps.policies.artefacts import VARIANTS, WEIGHTS_TEXT_MAX
from apps.policies.models import PolicyVersion

NODES_AT_ONCE_MAX = 2000
_MODES = [mode.value for mode in ControllerMode]


class ImportRequest(StrictSerializer):
    """An artefact as two parts: the card's JSON text, byte for byte, and the safetensors file in base64."""

    card = serializers.CharField(max_length=BYTES_MAX, trim_whitespace=False)
    weights = serializers.CharField(max_length=WEIGHTS_TEXT_MAX)


class Targets(StrictSerializer):
    """Which nodes: some by name, or all of them, said explicitly."""

    nodes = serializers.ListField(child=node_name_field(), required=False, min_length=1, max_length=NODES_AT_ONCE_MAX)
    all_nodes = serializers.BooleanField(required=False, default=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One of both, never neither."""
        if bool(attrs.get("nodes")) == attrs["all_nodes"]:
            raise serializers.ValidationError({"nodes": "Name nodes, or say all_nodes, not both."})
        return attrs

    @property
    def names(self) -> list[str] | None:
        """Names, or `None` for all."""
        return None if self.validated_data["all_nodes"] else list(self.validated_data["nodes"])


class UseRequest(Targets):
    """Let nodes decide by this version, or only advise."""

    controller = serializers.ChoiceField(choices=_MODES, default=ControllerMode.ADVISORY.value)
    reason = reason_field()


class OwnRequest(UseRequest):
    """Let nodes decide by the controller they were started with."""

    controller = serializers.ChoiceField(choices=_MODES, default=ControllerMode.ACTIVE.value)


class RollBackRequest(Targets):
    """Bring back what the newest assignment on each node replaced."""

    reason = reason_field()


class JudgeRequest(StrictSerializer):
    """What a version is worth, by hand."""

    state = serializers.ChoiceField(choices=[PolicyVersion.State.USABLE.value, PolicyVersion.State.REJECTED.value])
    reason = reason_field()


class PolicyParent(serializers.Serializer[Any]):
    """What a version was tuned from."""

    digest = serializers.CharField()
    label = serializers.CharField()


class PolicyUse(serializers.Serializer[Any]):
    """A node that was told to decide by the version."""

    node = serializers.CharField()
    controller = serializers.ChoiceField(choices=_MODES)


class PolicyChange(serializers.Serializer[Any]):
    """Relative change of P99 over paired runs, with its 95 % interval; below zero is better."""

    mean = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    pairs = serializers.IntegerField()


class JournalLeftOut(serializers.Serializer[Any]):
    """A journal of which nothing could be learned, and why."""

    name = serializers.CharField()
    reason = serializers.CharField()


class PolicyEvaluation(serializers.Serializer[Any]):
    """A version beside its parent and the rules, on streams nobody trained on."""

    verdict = serializers.CharField()
    reason = serializers.CharField()
    against = serializers.DictField(child=PolicyChange(), help_text="By opponent: parent, b5, b7.")
    cells = serializers.DictField(
        child=serializers.DictField(child=serializers.DictField()), help_text="Means of figures by cell and method."
    )
    seeds = serializers.ListField(child=serializers.IntegerField())
    seconds = serializers.FloatField()
    journals_left_out = JournalLeftOut(many=True, required=False)


class PolicyDocument(serializers.Serializer[Any]):
    """A policy version; lists leave its card out."""

    digest = serializers.CharField()
    name = serializers.CharField()
    number = serializers.IntegerField()
    label = serializers.CharField()
    variant = serializers.ChoiceField(choices=list(VARIANTS))
    source = serializers.ChoiceField(choices=PolicyVersion.Source.choices)
    state = serializers.ChoiceField(choices=PolicyVersion.State.choices)
    state_reason = serializers.CharField(allow_blank=True)
    parent = PolicyParent(allow_null=True)
    evaluation = PolicyEvaluation(allow_null=True)
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    wanted_on = PolicyUse(many=True)
    in_force_on = serializers.ListField(child=serializers.CharField())
    card = serializers.DictField(allow_null=True, help_text="Features, normalisation, action, training configuration and its figures.")


class PolicyArtefact(serializers.Serializer[Any]):
    """The bytes: what an import takes and a node fetches."""

    digest = serializers.CharField()
    card = serializers.CharField()
    weights = serializers.CharField()


class AssignmentDocument(serializers.Serializer[Any]):
    """One node was told to decide by a version (an empty digest: by its own controller)."""

    id = serializers.IntegerField()
    node = serializers.CharField()
    digest = serializers.CharField(allow_blank=True)
    controller = serializers.ChoiceField(choices=_MODES)
    before_digest = serializers.CharField(allow_blank=True)
    before_controller = serializers.ChoiceField(choices=_MODES)
    reason = serializers.CharField()
    actor = serializers.CharField()
    at = serializers.DateTimeField()
    undone_at = serializers.DateTimeField(allow_null=True)
