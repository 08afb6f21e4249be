"""A policy's two files side by side in a folder: NAME.json, the card, and NAME.safetensors."""

from pathlib import Path

from agents.artifacts.policy_file import PolicyFile, read_card


def policy_at(card: Path) -> PolicyFile:
    """The files, unchecked but for the card. Raises `ArtefactError` for a card that is refused, `OSError` for what cannot be read."""
    described = card.read_bytes()
    return PolicyFile(card.with_suffix(".safetensors").read_bytes(), described, read_card(described).digest)
