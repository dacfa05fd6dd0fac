"""Statistics of dropout masks: the fraction of units kept, and correlations of towers, images, layers, steps."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

_MIN_PAIRS = 2500  # of units: with so many, chance gives a correlation of 0.1 five standard deviations away


@dataclasses.dataclass(frozen=True)
class DropoutStats:
    """Statistics of the hidden units that training dropped.

    Attributes:
      kept: fraction of the units that were kept, of those whose mask is known.
      correlations: {'towers', 'images', 'layers', 'steps': correlation}: of a unit kept or dropped in tower 0 with the
        unit of the same place in tower 1; in one image of a batch with the next; in one hidden layer with the next; in
        one step with the next. 0 by chance, 1 where both are the same. None where there is nothing to compare.
    """

    kept: float | None
    correlations: dict[str, float | None]


def measure_masks(masks: list[dict[str, np.ndarray]]) -> DropoutStats:
    """Compares dropout masks that a `Recorder` recorded.

    Args:
      masks: of each step, {layer behind the hidden one: int8 (b, units)}, 1 kept, -1 dropped, 0 unknown; the units of
        tower 0 first.
    """
    flat = [mask for step in masks for mask in step.values()]
    known = np.concatenate([np.zeros(0), *(mask[mask != 0] for mask in flat)])
    pairs: dict[str, Iterable[Any]] = {
        'towers': (np.split(mask, 2, axis=1) for mask in flat),
        'images': ((mask[:-1], mask[1:]) for mask in flat),
        'layers': (pair for step in masks for pair in itertools.pairwise(step.values())),
        'steps': ((earlier[layer], later[layer]) for earlier, later in itertools.pairwise(masks) for layer in earlier),
    }
    return DropoutStats(
        kept=float((known > 0).mean()) if known.size else None,
        correlations={name: correlate(masks) for name, masks in pairs.items()},
    )


def correlate(pairs: Iterable[Any]) -> float | None:
    """Computes Pearson's correlation over all places of all pairs where both masks are known (not 0).

    None where a side is constant, or fewer than _MIN_PAIRS places are known; pairs of different shapes are left out.
    """
    known = [np.stack([a, b])[:, (a != 0) & (b != 0)] for a, b in pairs if a.shape == b.shape]
    sides = np.concatenate([np.zeros((2, 0)), *known], axis=1)
    if sides.shape[1] < _MIN_PAIRS or not sides.std(axis=1).all():
        return None
    return float(np.corrcoef(sides)[0, 1])
