"""How long to wait before a process that died is started again. Pure: chance comes in as a number."""

FIRST_SECONDS = 0.5  # a node killed by hand is back well within 15 s
MAX_SECONDS = 10.0
STEADY_SECONDS = 30.0  # alive this long: earlier deaths are forgotten


def backoff_seconds(deaths: int, chance: float) -> float:
    """Seconds before start number `deaths` + 1; doubles up to a bound. `chance` in [0, 1) spreads neighbours by a half."""
    return min(FIRST_SECONDS * 2.0 ** min(deaths - 1, 10), MAX_SECONDS) * (0.75 + 0.5 * chance)


def deaths_now(deaths: int, lived_seconds: float) -> int:
    """Deaths in a row, this one included."""
    return 1 if lived_seconds >= STEADY_SECONDS else deaths + 1
