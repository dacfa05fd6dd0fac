"""Measures errors on corrupted images as Hendrycks and Dietterich 2019 do: mCE and relative mCE.

A corruption error, CE, is the sum of a network's errors at severities 1 to 5 divided by that of AlexNet's; a relative
one takes the error on clean images from each first. Their means over the fifteen corruptions are mCE and relative mCE.
AlexNet's errors on ImageNet-C, of torchvision's weights, are in corruption_references.csv beside this file.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from alexnet_jax.data.corruption_constants import CORRUPTIONS, SEVERITIES


@dataclasses.dataclass(frozen=True)
class PublishedErrors:
    """AlexNet's published top-1 errors, as fractions.

    Attributes:
      clean: on the images as they are.
      corrupted: of each corruption those at severities 1 to 5.
    """

    clean: float
    corrupted: Mapping[str, Sequence[float]]


@dataclasses.dataclass(frozen=True)
class CorruptionErrors:
    """What follows from the errors of one corruption, or of several.

    Attributes:
      mean_error: over severities, and corruptions: a fraction, 0..1.
      relative_error: by how much that is above the clean error; None where that is not known.
      ce, relative_ce: (relative) corruption error, of several the mean (mCE), 1 for AlexNet; None where not all
        severities are there, of several not all corruptions, or AlexNet's errors are of other images.
    """

    mean_error: float
    relative_error: float | None
    ce: float | None
    relative_ce: float | None


def load_published_errors() -> PublishedErrors:
    """Reads corruption_references.csv."""
    with (pathlib.Path(__file__).parent / 'corruption_references.csv').open(newline='') as file:
        rows = {row['corruption']: row for row in csv.DictReader(file)}
    return PublishedErrors(
        float(rows['none']['mean']) / 100,
        {name: [float(rows[name][f'severity_{s}']) / 100 for s in SEVERITIES] for name in CORRUPTIONS},
    )


def measure_corruption(
    corruption: str, errors: Mapping[int, float], *, clean: float | None, published: PublishedErrors | None
) -> CorruptionErrors:
    """Measures the errors of a corruption, {severity: fraction}; `published` None: they are of other images."""
    mean, ce, relative_ce = sum(errors.values()) / len(errors), None, None
    if published is not None and set(errors) == set(SEVERITIES):
        theirs = sum(published.corrupted[corruption]) / len(SEVERITIES)
        ce = mean / theirs
        relative_ce = None if clean is None else (mean - clean) / (theirs - published.clean)
    return CorruptionErrors(mean, None if clean is None else mean - clean, ce, relative_ce)


def average_corruptions(measured: Mapping[str, CorruptionErrors]) -> CorruptionErrors:
    """Averages over corruptions: mCE and relative mCE where all fifteen are there."""
    rows, whole = list(measured.values()), set(measured) == set(CORRUPTIONS)

    def mean(values: Sequence[float | None], *, known: bool = True) -> float | None:
        numbers = [value for value in values if value is not None]
        return sum(numbers) / len(numbers) if known and len(numbers) == len(values) else None

    return CorruptionErrors(
        sum(row.mean_error for row in rows) / len(rows),
        mean([row.relative_error for row in rows]),
        mean([row.ce for row in rows], known=whole),
        mean([row.relative_ce for row in rows], known=whole),
    )
