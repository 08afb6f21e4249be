"""Amounts of memory as people write and read them."""

import re
from decimal import Decimal

_UNIT_BYTES = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}
_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,20})?) ?([a-z]*)", re.ASCII)
_STEPS = ("B", "KiB", "MiB", "GiB", "TiB")


def parse_bytes(text: str) -> int:
    """`512MiB`, `40GiB`, `80 GB` or plain bytes; `ValueError` for anything else, parts of a byte too."""
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None or found[2] not in _UNIT_BYTES:
        raise ValueError(f"{text!r} is no size such as 512MiB, 40GiB or 67108864")
    amount = Decimal(found[1]) * _UNIT_BYTES[found[2]]
    if amount != int(amount):
        raise ValueError(f"{text!r} is no whole number of bytes")
    return int(amount)


def bytes_text(amount: int) -> str:
    """`64.0 MiB`: binary units, one decimal."""
    value, step = float(amount), 0
    while abs(value) >= 1024 and step < len(_STEPS) - 1:
        value, step = value / 1024, step + 1
    return f"{value:.1f} {_STEPS[step]}" if step else f"{amount} B"
