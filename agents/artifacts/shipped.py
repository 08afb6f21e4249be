"""Policies that come with the product, by name."""

from importlib import resources

from agents.artifacts.policy_file import PolicyFile, read_card


def shipped_policy(name: str) -> PolicyFile | None:
    """The shipped files of a policy, unchecked; `None` if this version ships none of that name."""
    folder = resources.files("agents.artifacts").joinpath("shipped")
    weights, card = folder.joinpath(f"{name}.safetensors"), folder.joinpath(f"{name}.json")
    if not (weights.is_file() and card.is_file()):
        return None
    described = card.read_bytes()
    return PolicyFile(weights.read_bytes(), described, read_card(described).digest)
