"""Policies on this machine: artefacts by digest, shared by its nodes, and which of them a node was told to decide by."""

from pathlib import Path

import structlog

from agents.artifacts.policy_file import PolicyFile
from agents.runtime.files import write_private

FILES_MAX = 32  # of up to a megabyte; one that was dropped is fetched again
log = structlog.get_logger(__name__)


class PolicyStore:
    """Reads and writes; what it reads is checked by whoever uses it. A full disk costs a node its memory, not its life."""

    def __init__(self, folder: Path, wanted_file: Path) -> None:
        self._folder = folder
        self._wanted_file = wanted_file

    @property
    def wanted(self) -> str:
        """Digest of the policy this node was last told to decide by; empty: its own controller."""
        try:
            return self._wanted_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def want(self, digest: str) -> None:
        """Remember over a restart what the node was told."""
        self._write(self._wanted_file, digest.encode())

    def read(self, digest: str) -> PolicyFile | None:
        """The artefact of a digest, unchecked; `None` when it is not here."""
        weights, card = self._paths(digest)
        try:
            return PolicyFile(weights.read_bytes(), card.read_bytes(), digest)
        except OSError:
            return None

    def keep(self, file: PolicyFile) -> None:
        """Store an artefact that was checked."""
        weights, card = self._paths(file.digest)
        self._write(weights, file.weights)
        self._write(card, file.card)
        self._prune()

    def drop(self, digest: str) -> None:
        """Forget an artefact that turned out to be damaged."""
        for path in self._paths(digest):
            path.unlink(missing_ok=True)

    def _paths(self, digest: str) -> tuple[Path, Path]:
        return self._folder / f"{digest}.safetensors", self._folder / f"{digest}.json"

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_private(path, content)
        except OSError as error:
            log.error("policy_not_saved", path=str(path), error=str(error))

    def _prune(self) -> None:
        try:
            cards = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        except OSError:  # another node of this machine prunes at the same moment
            return
        for path in cards[:-FILES_MAX]:
            self.drop(path.stem)
