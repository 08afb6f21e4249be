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
    RATIO_MOVED = "ratio_moved"
    RECOVERY_STARTED = "recovery_started"
    RECOVERY_ENDED = "recovery_ended"
    POLICY_DEMOTED = "policy_demoted"
    CONDITION_CHANGED = "condition_changed"
    FRAME_REJECTED = "frame_rejected"
    WHATIF_STARTED = "whatif_started"
    WHATIF_FINISHED = "whatif_finished"
