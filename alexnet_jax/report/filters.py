"""Measures and renders the first layer's filters by tower, as in the paper's Figure 3."""

from __future__ import annotations

import dataclasses

import numpy as np

from alexnet_jax.model.colour import colour_shares, split_towers

_PERMUTATIONS = 9999
_SIDE = 54  # pixels of a tile: twice 27, four times 13, nine times 6, five times 11


@dataclasses.dataclass(frozen=True)
class Specialisation:
    """How differently the two towers see colour.

    Attributes:
      shares: (2, n / 2), 0..1: by tower, each filter's share of chromatic energy (model.colour.colour_shares).
      means, medians: of each tower's shares.
      difference: the distance of the towers' means, 0..1: 0 for towers that are alike, 1 where one has only grey and
        the other only colour.
      p: how often a random assignment of the same filters to the towers gives that difference or more (0..1).
    """

    shares: np.ndarray
    means: tuple[float, ...]
    medians: tuple[float, ...]
    difference: float
    p: float


def measure_specialisation(kernel: np.ndarray, *, permutations: int = _PERMUTATIONS) -> Specialisation:
    """Measures the specialisation of a first layer's kernel (kh, kw, 3, n), n even: tower 0's filters first.

    `p` is a two-sided permutation test's, (1 + as extreme) / (1 + permutations), with a fixed seed.
    """
    shares = split_towers(colour_shares(kernel))
    means, medians = (tuple(map(float, measure(shares, axis=1))) for measure in (np.mean, np.median))
    rng, difference, half = np.random.default_rng(0), abs(means[1] - means[0]), shares.shape[1]
    permuted = rng.permuted(np.tile(shares.ravel(), (permutations, 1)), axis=1)
    differences = np.abs(permuted[:, half:].mean(axis=1) - permuted[:, :half].mean(axis=1))
    extreme = int((differences >= difference - 1e-12).sum())  # rounding must not part equal ones
    return Specialisation(shares, means, medians, difference, p=(1 + extreme) / (1 + permutations))


def measure_initial_share(kernel: np.ndarray, initial_kernel: np.ndarray) -> float:
    """Measures the share of the filters' energy that is still of their random start, 0..1.

    It is the mean squared cosine between each filter now and then, of two (kh, kw, 3, n). Filters of independent random
    weights would have 1 / (weights of a filter) in common.
    """
    now, then = (array.astype(np.float64).reshape(-1, array.shape[-1]) for array in (kernel, initial_kernel))
    energies = (now**2).sum(axis=0) * (then**2).sum(axis=0)
    products = (now * then).sum(axis=0) ** 2
    return float(np.divide(products, energies, out=np.zeros_like(energies), where=energies > 0).mean())


def render_filters(kernel: np.ndarray) -> np.ndarray:
    """Renders (kh, kw, 3, n) as uint8 (n, kh, kw, 3): a weight of 0 is middle grey, a filter's largest is full.

    The image is the one that the filter answers to most.
    """
    filters = np.moveaxis(kernel.astype(np.float64), -1, 0)
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    scaled = np.divide(filters, largest, out=np.zeros_like(filters), where=largest > 0)
    return np.rint(127.5 + 127.5 * scaled).astype(np.uint8)


def tile_images(images: np.ndarray, *, max_columns: int, gap: int = 4) -> np.ndarray:
    """Arranges uint8 (n, h, w, 3) in reading order on one RGBA image, with transparent gaps between them.

    Each is enlarged to about _SIDE pixels, each of its own a square. A row has `max_columns` of them, or fewer, but at
    least half as many, if all rows are full then.
    """
    scale = max(1, round(_SIDE / images.shape[1]))
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    n, height, width, _ = images.shape
    divisors = (columns for columns in range(max_columns, max(max_columns // 2, 1) - 1, -1) if n % columns == 0)
    columns = next(divisors, min(n, max_columns))
    rows = -(-n // columns)
    tiles = np.zeros((rows * columns, height + gap, width + gap, 4), np.uint8)
    tiles[:n, :height, :width] = np.insert(images, 3, 255, axis=3)  # opaque
    grid = tiles.reshape(rows, columns, height + gap, width + gap, 4).swapaxes(1, 2)
    return grid.reshape(rows * (height + gap), columns * (width + gap), 4)[: -gap or None, : -gap or None]
