"""Which verb is legal in which mode (pure). The server answers with this table; the console never guesses."""

from enum import StrEnum
from typing import NamedTuple

from agents.wire.messages import Mode


class Verb(StrEnum):
    """What a person may do to a node."""

    OVERRIDE = "override"
    PIN = "pin"
    RELEASE = "release"
    RESIZE = "resize"


class Verdict(NamedTuple):
    """Whether a verb is legal now, its code, and the sentence to show when it is not."""

    allowed: bool
    code: str = ""
    reason: str = ""


_ALLOWED = Verdict(True)
_TABLE: dict[tuple[Mode, Verb], Verdict] = {
    (Mode.AUTO, Verb.OVERRIDE): _ALLOWED,
    (Mode.AUTO, Verb.PIN): _ALLOWED,
    (Mode.AUTO, Verb.RELEASE): Verdict(False, "already_auto", "The controller already has this node."),
    (Mode.OVERRIDE, Verb.OVERRIDE): _ALLOWED,
    (Mode.OVERRIDE, Verb.PIN): _ALLOWED,
    (Mode.OVERRIDE, Verb.RELEASE): _ALLOWED,
    # A pin stands until somebody releases it: an override that ended would otherwise end the pin with it.
    (Mode.PIN, Verb.OVERRIDE): Verdict(False, "pinned", "The node is pinned: release it first."),
    (Mode.PIN, Verb.PIN): _ALLOWED,
    (Mode.PIN, Verb.RELEASE): _ALLOWED,
    # A pool's size and who sets the split are separate matters: the split is a share of whatever the pool has.
    (Mode.AUTO, Verb.RESIZE): _ALLOWED,
    (Mode.OVERRIDE, Verb.RESIZE): _ALLOWED,
    (Mode.PIN, Verb.RESIZE): _ALLOWED,
}
# Verbs that say who sets the split; the others leave the mode as it is.
MODE_AFTER: dict[Verb, Mode] = {Verb.OVERRIDE: Mode.OVERRIDE, Verb.PIN: Mode.PIN, Verb.RELEASE: Mode.AUTO}


def verdict(mode: Mode, verb: Verb) -> Verdict:
    """Is `verb` legal for a node whose desired mode is `mode`?"""
    return _TABLE[mode, verb]
