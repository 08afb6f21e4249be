"""A profile as the text of a profile file: what `load_profile` reads back unchanged."""

import json
from typing import Any

import msgspec

from agents.profiles.profile import Profile


def profile_text(profile: Profile, heading: str = "") -> str:
    """TOML of a profile; `heading` becomes a comment above it, line by line."""
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    _write_table(lines, "", msgspec.to_builtins(profile))
    return "\n".join(lines) + "\n"


def _write_table(lines: list[str], name: str, fields: dict[str, Any]) -> None:
    """Plain members first: what follows a header belongs to it."""
    nested = {key: value for key, value in fields.items() if _is_nested(value)}
    lines += [f"{key} = {_value(value)}" for key, value in fields.items() if key not in nested and value is not None]
    for key, value in nested.items():
        path = f"{name}.{key}" if name else key
        for item in value if isinstance(value, list) else [value]:
            lines += ["", f"[[{path}]]" if isinstance(value, list) else f"[{path}]"]
            _write_table(lines, path, item)


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _value(value: Any) -> str:
    """Numbers, truth, strings and lists of them are written alike in JSON and TOML; a float keeps its point."""
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        return f"{value:.1f}"
    return json.dumps(value)
