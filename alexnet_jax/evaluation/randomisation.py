"""Do maps depend on what a network has learned? The check of Adebayo et al. 2018, section 4, cascading randomisation.

Layers are drawn anew from the top down, and maps of the network so spoilt are compared with those of the trained one.
A method whose maps stay the same shows edges of the image and nothing of the network.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from alexnet_jax.model.network import Network


def iter_randomised(network: Network, *, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (layer, parameters) with all layers down to `layer` drawn anew: fc8, then fc7 too, ... to conv1.

    Kernels have the spread and the mean of those that were learned, so that neither signals die nor outputs saturate;
    biases are those of the network's own start.
    """
    random, params = np.random.default_rng(seed), dict(network.params)
    for layer in reversed(network.variant.layers):
        kernel, bias = (network.params[layer.name][name] for name in ('kernel', 'bias'))
        drawn = random.standard_normal(kernel.shape, np.float32) * kernel.std() + kernel.mean()
        params[layer.name] = {'kernel': drawn, 'bias': np.full_like(bias, layer.init_bias)}
        yield layer.name, dict(params)


def correlate_ranks(one: np.ndarray, other: np.ndarray) -> float | None:
    """Computes Spearman's rank correlation of two maps of one shape, ties sharing their mean rank.

    None where a map is the same everywhere, or has values that are not finite: it has no order.
    """
    if not all(np.isfinite(x).all() and np.ptp(x) > 0 for x in (one, other)):
        return None
    return float(np.corrcoef(np.stack([_rank(np.ravel(x)) for x in (one, other)]))[0, 1])


def _rank(values: np.ndarray) -> np.ndarray:
    """Returns each value's rank among all, 1 for the smallest; equal ones get the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
