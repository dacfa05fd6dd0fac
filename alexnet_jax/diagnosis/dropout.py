"""Whether dropout drops by chance: as many as it should, and in every place, image, layer and step others."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

_FEWEST = 2500  # pairs of units: of so many, chance gives a correlation of 0.1 five standard deviations away


@dataclasses.dataclass(frozen=True)
class DropoutLook:
    """Dropped hidden units, as training dropped them.

    Attributes:
      kept: fraction of the units that were kept, of those that can be told.
      alike: {'towers', 'images', 'layers', 'steps': correlation}: of a unit kept or dropped in tower 0 with the unit
        of the same place in tower 1; in one image of a batch with the next; in one hidden layer with the next; in one
        step with the next. 0 by chance, 1 where both are the same. None where there is nothing to compare.
    """

    kept: float | None
    alike: dict[str, float | None]


def look_at_masks(masks: list[dict[str, np.ndarray]]) -> DropoutLook:
    """Compares what `Watch` heard.

    Args:
      masks: of each step, {layer behind the hidden one: int8 (b, units)}, 1 kept, -1 dropped, 0 unknown; the units of
        tower 0 first.
    """
    every = [mask for step in masks for mask in step.values()]
    known = np.concatenate([mask[mask != 0].ravel() for mask in every]) if every else np.zeros(0)
    halves = [np.split(mask, 2, axis=1) for mask in every]
    pairs = {
        'towers': [(first, second) for first, second in halves],
        'images': [(mask[:-1], mask[1:]) for mask in every],
        'layers': [pair for step in masks for pair in itertools.pairwise(step.values())],
        'steps': [(earlier[layer], later[layer]) for earlier, later in itertools.pairwise(masks) for layer in earlier],
    }
    return DropoutLook(
        kept=float((known > 0).mean()) if known.size else None,
        alike={name: correlation(of) for name, of in pairs.items()},
    )


def correlation(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Pearson's, over all places of all pairs where both are known (not 0); None of fewer than _FEWEST, or constant."""
    known = [(a[both], b[both]) for a, b in pairs if a.shape == b.shape and (both := (a != 0) & (b != 0)).any()]
    if not known:
        return None
    first, second = (np.concatenate([pair[i] for pair in known]).astype(np.float64) for i in (0, 1))
    if len(first) < _FEWEST or not first.std() or not second.std():
        return None
    return float(np.corrcoef(first, second)[0, 1])
