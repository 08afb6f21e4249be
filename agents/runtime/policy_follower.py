"""Deciding by the policy that the control plane names: fetch, check, warm up, switch between two decisions.

Until everything holds the present policy stays; what went wrong is a condition and one event. The node goes on by
itself over a restart: what it was told and the artefact lie on its disk.
"""

import asyncio
import random
import re
from collections.abc import Callable

import structlog

from agents.artifacts.policy_file import ArtefactError, PolicyFile, Refusal, read_policy
from agents.controller.frozen import freeze
from agents.node.report import PolicyFacts
from agents.runtime.policy_fetch import Fetch, FetchError
from agents.runtime.policy_store import PolicyStore
from agents.wire.errors import WireError
from agents.wire.events import EventKind

PAUSE_SECONDS_MIN = 1.0
PAUSE_SECONDS_MAX = 60.0
_DIGEST = re.compile(r"[0-9a-f]{64}")  # it becomes part of a path and of an address
log = structlog.get_logger(__name__)

Announce = Callable[[EventKind, dict[str, str]], None]


class PolicyFollower:
    """One node's. `switch` puts a checked policy (`None`: the node's own controller) in force at once, `warm` takes its time before.

    Lives on the loop that owns the brain, so a switch falls between two calls of it.
    """

    def __init__(
        self,
        *,
        store: PolicyStore,
        fetch: Fetch,
        switch: Callable[[PolicyFile | None], None],
        warm: Callable[[], None],
        tell: Callable[[PolicyFacts], None],
        announce: Announce,
        chance: random.Random,
        pause_seconds_min: float = PAUSE_SECONDS_MIN,
    ) -> None:
        self._store = store
        self._fetch = fetch
        self._switch = switch
        self._warm = warm
        self._tell = tell
        self._announce = announce
        self._chance = chance
        self._pause_seconds_min = pause_seconds_min
        self._wanted = ""
        self._complained = ""
        self._refused = False  # what is wanted could not be taken, and is not tried again
        self._task: asyncio.Task[None] | None = None

    def restore(self) -> None:
        """After a restart: decide by what the node was told, at once if it lies here, else as soon as it can be fetched."""
        self._wanted = self._store.wanted
        if not self._wanted:
            return
        file = self._kept(self._wanted) if _DIGEST.fullmatch(self._wanted) else None
        if file is None:
            self._start(self._wanted)
        else:
            self._put_in_force(self._wanted, file)

    def want(self, digest: str, *, again: bool = False) -> None:
        """A command names a policy; the same one changes nothing, unless somebody says it again where it could not be taken."""
        if digest == self._wanted and not (again and self._refused):
            return
        self._wanted = digest
        self._store.want(digest)
        self._start(digest)

    async def close(self) -> None:
        """Leave off."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _start(self, digest: str) -> None:
        if self._task is not None:
            self._task.cancel()
        self._complained, self._refused = "", False
        if digest and not _DIGEST.fullmatch(digest):
            self._give_up(digest, "NotADigest", "64 hexadecimal digits are expected")
            return
        self._tell(PolicyFacts(False, "Fetching", f"policy {digest[:12]}" if digest else "its own controller"))
        self._task = asyncio.create_task(self._follow(digest))

    async def _follow(self, digest: str) -> None:
        pause_seconds = self._pause_seconds_min
        while True:
            try:
                file = await self._file(digest) if digest else None
                await asyncio.to_thread(self._warm)
                self._put_in_force(digest, file)
                return
            except FetchError as error:
                self._complain(digest, "FetchFailed", str(error))
            except ArtefactError as error:
                if error.code is not Refusal.DIGEST_MISMATCH:  # the bytes under a digest never change: refused once, refused again
                    self._give_up(digest, _words(error.code), error.detail)
                    return
                self._complain(digest, _words(error.code), error.detail)  # damaged on the way, or somebody else's
            await asyncio.sleep(self._chance.uniform(pause_seconds / 2, pause_seconds))
            pause_seconds = min(2 * pause_seconds, PAUSE_SECONDS_MAX)

    async def _file(self, digest: str) -> PolicyFile:
        """The artefact from disk or from the control plane, checked."""
        kept = self._kept(digest)
        if kept is not None:
            return kept
        file = await self._fetch(digest)
        _check(file, digest)
        self._store.keep(file)
        return file

    def _kept(self, digest: str) -> PolicyFile | None:
        file = self._store.read(digest)
        if file is None:
            return None
        try:
            _check(file, digest)
        except ArtefactError as error:
            log.error("kept_policy_damaged", digest=digest, error=str(error))
            self._store.drop(digest)
            return None
        return file

    def _put_in_force(self, digest: str, file: PolicyFile | None) -> None:
        try:
            self._switch(file)
        except WireError as error:
            self._give_up(digest, "NotTaken", error.detail)
            return
        reason, message = ("InForce", f"policy {digest[:12]}") if digest else ("OwnController", "")
        self._tell(PolicyFacts(True, reason, message))
        self._announce(EventKind.POLICY_SWITCHED, {"policy_digest": digest})
        log.info("policy_switched", digest=digest)

    def _give_up(self, digest: str, reason: str, message: str) -> None:
        self._refused = True
        self._complain(digest, reason, message)

    def _complain(self, digest: str, reason: str, message: str) -> None:
        """The condition at every failure, the event once per reason: a control plane that is away for an hour is one line."""
        self._tell(PolicyFacts(False, reason, f"policy {digest[:12]}: {message}"[:200]))
        if reason != self._complained:
            self._complained = reason
            self._announce(EventKind.POLICY_REFUSED, {"policy_digest": digest, "reason": reason, "detail": message[:200]})
            log.error("policy_refused", digest=digest, reason=reason, detail=message)


def _check(file: PolicyFile, digest: str) -> None:
    policy = read_policy(file.weights, file.card)
    freeze(policy)
    if policy.card.digest != digest:
        raise ArtefactError(Refusal.DIGEST_MISMATCH, f"asked for {digest[:12]}, got {policy.card.digest[:12]}")


def _words(code: Refusal) -> str:
    """A refusal's code as a condition's reason: `artefact_too_new` -> `ArtefactTooNew`."""
    return "".join(word.capitalize() for word in code.value.split("_"))
