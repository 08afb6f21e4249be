"""How facts of the outbox leave this process: commands to the links, news to the consoles."""

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from apps.audit.actions import TOPIC_EVENT
from apps.audit.models import Event
from apps.audit.queries import event_document
from apps.fleet.actions import TOPIC_COMMAND
from apps.live import hub, stream
from apps.outbox.dispatch import register
from apps.outbox.models import OutboxMessage
from apps.policies import training_actions
from apps.policies import training_queries as training
from apps.whatif import queries as whatif
from apps.whatif.actions import TOPIC_PROGRESS


def send_command(message: OutboxMessage) -> bool:
    """Tell the process that holds the node's link; the node's acknowledgement closes the fact, not this."""
    async_to_sync(get_channel_layer().group_send)(hub.GROUP, {"type": "command", "node_id": message.payload["node_id"]})
    return False


def send_event(message: OutboxMessage) -> bool:
    """Put an event on the operators' stream."""
    event = Event.objects.filter(pk=message.payload["event_id"]).first()
    if event is not None:
        stream.publish("event", "events", event_document(event))
    return True


def send_progress(message: OutboxMessage) -> bool:
    """Put a job's state on the operators' stream."""
    row = whatif.runs().filter(uid=message.payload["uid"]).first()
    if row is not None:
        stream.publish("job.progress", "jobs", whatif.document(row, whole=False))
    return True


def send_training(message: OutboxMessage) -> bool:
    """Put a training run's state and curve on the operators' stream."""
    row = training.runs().filter(uid=message.payload["uid"]).first()
    if row is not None:
        stream.publish("training.progress", "jobs", training.document(row))
    return True


def register_all() -> None:
    """Name the handlers; called once when Django is ready."""
    register(TOPIC_COMMAND, send_command)
    register(TOPIC_EVENT, send_event)
    register(TOPIC_PROGRESS, send_progress)
    register(training_actions.TOPIC_PROGRESS, send_training)
