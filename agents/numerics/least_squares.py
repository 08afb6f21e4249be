"""Least squares without negative coefficients, for causes that cannot save time."""

import numpy as np
from numpy.typing import NDArray


def nonnegative(measured: NDArray[np.float64], columns: NDArray[np.float64]) -> list[float]:
    """Coefficients [C] of `columns` [M, C] for `measured` [M]; those that come out negative are left out, the worst first."""
    scales = np.abs(columns).max(axis=0)  # n and n^2 differ by thousands: solve in comparable units
    scaled = columns / np.where(scales > 0, scales, 1.0)
    kept = [column for column in range(columns.shape[1]) if scales[column] > 0]
    coefficients = np.zeros(columns.shape[1])
    while kept:
        solved = np.linalg.lstsq(scaled[:, kept], measured, rcond=None)[0]
        if solved.min() >= 0:
            coefficients[kept] = solved / scales[kept]
            break
        del kept[int(solved.argmin())]
    return [float(value) for value in coefficients]
