"""Nearest images by what the last hidden layer makes of them (paper section 6.1, figure 4, right)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from sklearn.neighbors import NearestNeighbors

NEAREST = 6  # of the paper's figure


def nearest(queries: np.ndarray, batches: Iterable[np.ndarray], count: int = NEAREST) -> tuple[np.ndarray, np.ndarray]:
    """The `count` rows of all `batches` together that are nearest to each query: Euclidean, exact, by brute force.

    Only the best so far and one batch are in memory, so any number of images can be searched.

    Args:
      queries: float (q, d).
      batches: of float (b, d), in the order of the records.
      count: how many; fewer where there are fewer rows.

    Returns:
      Distances, float64 (q, count), ascending, and the rows' numbers, int64; of equal distances the first comes first.
    """
    distances: np.ndarray = np.empty((len(queries), 0))
    places: np.ndarray = np.empty((len(queries), 0), np.int64)
    start = 0
    for batch in batches:
        search = NearestNeighbors(n_neighbors=min(count, len(batch)), algorithm='brute', metric='euclidean').fit(batch)
        further, where = search.kneighbors(queries)
        distances = np.concatenate([distances, further], axis=1)
        places = np.concatenate([places, where + start], axis=1)
        best = np.lexsort((places, distances))[:, :count]
        distances, places = (np.take_along_axis(values, best, axis=1) for values in (distances, places))
        start += len(batch)
    return distances, places
