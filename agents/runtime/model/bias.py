"""Relative biases of attention: a position term and a time term, both of differences only.

A bias that depends on a difference does not change when a history grows, and that is what lets
cached keys be reused. Keys are held in two runs, all items and then all actions, so that the
event grid (one timestamp per event) is enough for the time term.
"""

import torch

from agents.profiles import ModelShape

_EXPONENT_SHIFT = 23  # of an IEEE float32
_EXPONENT_OFFSET = 127
MASKED = -1e9  # silu of it is exactly zero, so a masked key adds nothing


def log2_buckets(seconds: torch.Tensor, buckets: int) -> torch.Tensor:
    """`floor(log2(|seconds|))` clamped to `0..buckets-1`, int32; zero seconds are bucket 0.

    Read from the exponent bits: a logarithm may round differently in a vector's tail, and a
    bucket that depends on where an element lies would break the equality of cached and fresh.
    """
    magnitude = seconds.abs().to(torch.float32).clamp_(min=1.0)
    exponent = magnitude.view(torch.int32) >> _EXPONENT_SHIFT
    return exponent.sub_(_EXPONENT_OFFSET).clamp_(max=buckets - 1)


class PositionTiles:
    """Position biases laid out so that any chunk of queries reads one slice.

    The last `rows` events before an end, against all events before that end: row r, column c of
    the tile is query event `end - rows_max + r`, key event `end - tokens_max + c`, whatever `end`
    is. So the tile is cut at its right lower corner and never gathered.
    """

    def __init__(self, table: torch.Tensor, shape: ModelShape, rows_max: int) -> None:
        self._rows_max = rows_max
        self._columns = shape.tokens_max
        rows = torch.arange(rows_max, device=table.device).view(rows_max, 1)
        columns = torch.arange(self._columns, device=table.device).view(1, self._columns)
        distance = 2 * (rows - rows_max + self._columns - columns)  # from item to item, in positions
        kinds = torch.arange(2, device=table.device)
        offset = kinds.view(1, 2, 1, 1) - kinds.view(2, 1, 1, 1)  # query kind - key kind
        full = distance + offset
        bias = table[:, full.clamp(0, table.shape[1] - 1)]
        self._history = bias.masked_fill_(full < 0, MASKED).contiguous()
        ahead = 2 * (self._columns - columns) - kinds.view(2, 1)
        self._candidate = table[:, ahead].contiguous()

    def history(self, layer: int, rows: int, columns: int) -> torch.Tensor:
        """`[2 key kinds, 2 query kinds, rows, columns]` for the last `rows` of `columns` events; later keys are masked."""
        return self._history[layer, :, :, self._rows_max - rows :, self._columns - columns :]

    def candidate(self, layer: int, columns: int) -> torch.Tensor:
        """`[2 key kinds, columns]` for a candidate that stands right after `columns` events."""
        return self._candidate[layer, :, self._columns - columns :]
