"""The catalogue of events: everything the product may announce, in one place."""

from enum import StrEnum


class EventKind(StrEnum):
    """What happened. Severity and audience are the reader's business."""

    NODE_ENROLLED = "node_enrolled"
    NODE_ONLINE = "node_online"
    NODE_OFFLINE = "node_offline"
    NODE_DRAINING = "node_draining"
    OVERRIDE_REQUESTED = "override_requested"
    OVERRIDE_APPLIED = "override_applied"
    OVERRIDE_EXPIRED = "override_expired"
    PIN_REQUESTED = "pin_requested"
    PIN_APPLIED = "pin_applied"
    RELEASE_REQUESTED = "release_requested"
    RELEASED = "released"
    POOL_REQUESTED = "pool_requested"
    RATIO_MOVED = "ratio_moved"
    RECOVERY_STARTED = "recovery_started"
    RECOVERY_ENDED = "recovery_ended"
    POLICY_DEMOTED = "policy_demoted"
    POLICY_ADDED = "policy_added"
    POLICY_REQUESTED = "policy_requested"
    POLICY_SWITCHED = "policy_switched"
    POLICY_REFUSED = "policy_refused"
    CONDITION_CHANGED = "condition_changed"
    FRAME_REJECTED = "frame_rejected"
    WHATIF_STARTED = "whatif_started"
    WHATIF_FINISHED = "whatif_finished"
    TRAINING_STARTED = "training_started"
    TRAINING_FINISHED = "training_finished"
