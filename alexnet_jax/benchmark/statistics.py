"""Medians and quartiles over rounds. Standard library only."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Spread:
    """The median of some values, and between what the middle half of them lies."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of two values or more; quartiles are interpolated, the smallest value being the 0th percentile."""
        low, median, high = statistics.quantiles(values, n=4, method='inclusive')
        return cls(median, low, high)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Of ours / theirs, round by round: what disturbs a whole round disturbs both, and cancels."""
    return Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])
