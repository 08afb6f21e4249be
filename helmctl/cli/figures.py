"""Figures in tables and lines for people; a dash where nothing is known."""


def figure(value: float | None, style: str, unit: str = "") -> str:
    """A figure in a format such as `+.1f`."""
    return "-" if value is None else f"{value:{style}}{unit}"


def number(value: float | None, digits: int = 1) -> str:
    """A figure with so many decimals."""
    return figure(value, f".{digits}f")
