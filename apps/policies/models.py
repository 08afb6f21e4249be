"""Policy versions (what may decide), assignments (who was told to decide by what), and training runs (where versions come from)."""

from django.db import models

from apps.jobs.models import OPEN, Job


class PolicyVersion(models.Model):
    """One artefact: weights and card under the digest of both. Never changed but for its state."""

    class State(models.TextChoices):
        """A `candidate` was not compared with anything yet; a `rejected` one is kept and may only advise."""

        CANDIDATE = "candidate"
        USABLE = "usable"
        REJECTED = "rejected"

    class Source(models.TextChoices):
        """How it came here."""

        SHIPPED = "shipped"
        IMPORTED = "imported"
        TUNED = "tuned"

    digest = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=64)
    number = models.PositiveIntegerField()  # 1, 2, ... per name: what people say
    variant = models.CharField(max_length=16)  # which set of features it looks at
    source = models.CharField(max_length=16, choices=Source.choices)
    state = models.CharField(max_length=16, choices=State.choices, default=State.CANDIDATE)
    state_reason = models.CharField(max_length=200, blank=True)
    parent = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="children")
    evaluation = models.JSONField(null=True)
    card = models.TextField()  # the very bytes, as JSON text
    weights = models.BinaryField()  # safetensors
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name", "number"], name="policy_number_once")]

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.name} v{self.number}"


class Assignment(models.Model):
    """One node was told to decide by a version, or by its own controller (`digest` empty); what was so before stands beside it."""

    node_name = models.CharField(max_length=63)
    digest = models.CharField(max_length=64, blank=True)
    controller = models.CharField(max_length=16)
    before_digest = models.CharField(max_length=64, blank=True)
    before_controller = models.CharField(max_length=16)
    reason = models.CharField(max_length=200)
    actor = models.CharField(max_length=150)
    at = models.DateTimeField()
    undone_at = models.DateTimeField(null=True)  # rolled back: the one before it is in force again

    class Meta:
        indexes = [models.Index(fields=["node_name", "-id"], name="assignment_node")]


class TrainingRun(Job):
    """One fine-tuning: from which version, how much of everything, how far it is, what came of it."""

    class Trigger(models.TextChoices):
        """Who began it."""

        PERSON = "person"
        SCHEDULE = "schedule"

    parent = models.ForeignKey(PolicyVersion, on_delete=models.PROTECT, related_name="runs")
    options = models.JSONField()
    trigger = models.CharField(max_length=16, choices=Trigger.choices, default=Trigger.PERSON)
    curve = models.JSONField(default=list)  # [{steps, reward_mean, seconds, loss}]
    result = models.ForeignKey(PolicyVersion, null=True, on_delete=models.PROTECT, related_name="made_by")

    class Meta:
        indexes = [models.Index(fields=["status", "heartbeat_at"], name="training_open")]
        # A constant among the open ones: one of them at a time, whatever its status.
        constraints = [models.UniqueConstraint(models.Value(1), condition=models.Q(status__in=OPEN), name="training_one_open")]
