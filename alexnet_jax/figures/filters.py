"""The first layer's filters by tower, as in the paper's Figure 3, and how far the towers have specialised."""

from __future__ import annotations

import dataclasses

import numpy as np

from alexnet_jax.model.filters import colour_shares, of_towers

_PERMUTATIONS = 9999
_SIDE = 54  # pixels of a picture on a sheet: twice 27, four times 13, nine times 6, five times 11


@dataclasses.dataclass(frozen=True)
class Specialisation:
    """How differently the two towers see colour.

    Attributes:
      shares: (2, n / 2), 0..1: by tower, each filter's share of chromatic energy (model.filters.colour_shares).
      means, medians: of each tower's shares.
      difference: the distance of the towers' means, 0..1: 0 for towers that are alike, 1 where one has only grey and
        the other only colour.
      p: how often a random assignment of the same filters to the towers gives that difference or more (0..1).
    """

    shares: np.ndarray
    means: tuple[float, float]
    medians: tuple[float, float]
    difference: float
    p: float


def specialisation(kernel: np.ndarray, *, permutations: int = _PERMUTATIONS) -> Specialisation:
    """The statistic of a first layer's kernel (kh, kw, 3, n), n even: tower 0's filters first.

    `p` is a two-sided permutation test's, (1 + as extreme) / (1 + permutations), with a fixed seed.
    """
    shares = of_towers(colour_shares(kernel))
    difference = abs(float(shares[1].mean() - shares[0].mean()))
    random, flat, half = np.random.default_rng(0), shares.ravel(), shares.shape[1]
    chance = random.permuted(np.tile(flat, (permutations, 1)), axis=1)
    differences = np.abs(chance[:, half:].mean(axis=1) - chance[:, :half].mean(axis=1))
    extreme = int((differences >= difference - 1e-12).sum())  # rounding must not part equal ones
    return Specialisation(
        shares=shares,
        means=(float(shares[0].mean()), float(shares[1].mean())),
        medians=(float(np.median(shares[0])), float(np.median(shares[1]))),
        difference=difference,
        p=(1 + extreme) / (1 + permutations),
    )


def memory_of_start(kernel: np.ndarray, start: np.ndarray) -> float:
    """How much of the filters is still their random beginning, 0..1: the mean squared cosine between now and then.

    Filters of independent random weights would have 1 / (weights of a filter) in common.
    """
    now, then = (array.astype(np.float64).reshape(-1, array.shape[-1]) for array in (kernel, start))
    lengths = (now**2).sum(axis=0) * (then**2).sum(axis=0)
    return float(
        np.divide((now * then).sum(axis=0) ** 2, lengths, out=np.zeros(len(lengths)), where=lengths > 0).mean()
    )


def filter_pictures(kernel: np.ndarray) -> np.ndarray:
    """(kh, kw, 3, n) -> uint8 (n, kh, kw, 3): each filter with its weights of 0 as middle grey and its largest as full.

    What the picture shows is what the filter answers to most.
    """
    filters = np.moveaxis(kernel.astype(np.float64), -1, 0)
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    scaled = np.divide(filters, largest, out=np.zeros_like(filters), where=largest > 0)
    return np.rint(127.5 + 127.5 * scaled).astype(np.uint8)


def sheet(pictures: np.ndarray, *, most_columns: int, gap: int = 4) -> np.ndarray:
    """uint8 (n, h, w, 3) -> RGBA: the pictures in reading order, with transparent gaps between them.

    Each is enlarged to about _SIDE pixels, each of its own a square. A row has `most_columns` of them, or if that makes
    all rows full and is at least half as many, fewer.
    """
    times = max(1, round(_SIDE / pictures.shape[1]))
    pictures = pictures.repeat(times, axis=1).repeat(times, axis=2)
    n, height, width, _ = pictures.shape
    full = [columns for columns in range(most_columns, most_columns // 2 - 1, -1) if columns and n % columns == 0]
    columns = full[0] if full else most_columns
    rows = -(-n // columns)
    out = np.zeros((rows * (height + gap) - gap, min(n, columns) * (width + gap) - gap, 4), np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        out[top : top + height, left : left + width, :3] = picture
        out[top : top + height, left : left + width, 3] = 255
    return out
