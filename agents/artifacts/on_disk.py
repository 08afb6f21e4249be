"""A policy's two files side by side in a folder: NAME.json, the card, and NAME.safetensors."""

from pathlib import Path

from agents.artifacts.policy_file import PolicyFile, read_card


def policy_at(either: Path) -> PolicyFile:
    """The files, named by either of them, unchecked but for the card.

    Raises `ArtefactError` for a card that is refused, `OSError` for what cannot be read.
    """
    card = either.with_suffix(".json") if either.suffix == ".safetensors" else either
    described = card.read_bytes()
    return PolicyFile(card.with_suffix(".safetensors").read_bytes(), described, read_card(described).digest)
