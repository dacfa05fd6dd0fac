"""What follows from the probabilities of a split: errors, a table by class, confusions, calibration, ensembles.

Pure NumPy, on the host. A class is called by the largest probability; where several share it nobody was called, and the
image counts as an error, as in evaluation.evaluator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from alexnet_jax.evaluation.evaluator import Result
from alexnet_jax.evaluation.predictions import Predictions

BINS = 15  # of confidence, as in Guo et al., "On calibration of modern neural networks" (2017), whose measure it is


def right_ranks(predictions: Predictions) -> np.ndarray:
    """int64 (n,): how many other classes are not less probable than the right one; 0 is right, 5 not among five."""
    probabilities, labels = predictions.probabilities, predictions.labels
    right = np.take_along_axis(probabilities, labels[:, None], axis=1)
    not_less = ~(probabilities < right)  # so that NaN is an error too
    return not_less.sum(axis=1) - np.take_along_axis(not_less, labels[:, None], axis=1)[:, 0]


def losses(predictions: Predictions) -> np.ndarray:
    """float64 (n,): -log of the right class's probability, in nats, which are at most those of the dtype's least."""
    right = np.take_along_axis(predictions.probabilities, predictions.labels[:, None], axis=1)[:, 0]
    return -np.log(np.maximum(right, np.finfo(right.dtype).tiny).astype(np.float64))


def measure(predictions: Predictions) -> Result:
    """Loss, top-1 and top-5 error of all images."""
    ranks = right_ranks(predictions)
    errors = [float((ranks >= k).mean()) for k in (1, 5)]
    return Result(len(ranks), float(losses(predictions).mean()), *errors)


def confusion(predictions: Predictions) -> np.ndarray:
    """int64 (classes, classes): images of class i that were called class j; of several equal ones the first."""
    classes = predictions.probabilities.shape[1]
    pairs = predictions.labels.astype(np.int64) * classes + predictions.probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """One class.

    Attributes:
      index, name: which.
      images: of the split; where there are none, what is a mean over them is None.
      top1_error, top5_error: fractions of its images, 0..1.
      mean_probability: of this class, over its images.
      called: images of any class that were called this one.
      taken_for: the other class that most of its images were called; '' where none was called another.
      taken_for_images: how many.
    """

    index: int
    name: str
    images: int
    top1_error: float | None
    top5_error: float | None
    mean_probability: float | None
    called: int
    taken_for: str
    taken_for_images: int


def by_class(predictions: Predictions, classes: Sequence[str]) -> list[ClassRow]:
    """A row for each of `classes`, in their order."""
    ranks, matrix = right_ranks(predictions), confusion(predictions)
    others = matrix * (1 - np.eye(len(matrix), dtype=np.int64))
    rows = []
    for index, name in enumerate(classes):
        own = predictions.labels == index
        means = [ranks[own] >= 1, ranks[own] >= 5, predictions.probabilities[own, index]]
        first, second, third = (float(values.mean()) if own.any() else None for values in means)
        most = int(others[index].argmax())
        taken = classes[most] if others[index, most] else ''
        called, count = int(matrix[:, index].sum()), int(others[index, most])
        rows.append(ClassRow(index, name, int(own.sum()), first, second, third, called, taken, count))
    return rows


@dataclasses.dataclass(frozen=True)
class Bin:
    """The images whose most probable class has a probability above `lower` and up to `upper`.

    Attributes:
      lower, upper: 0..1.
      images: how many.
      confidence: their mean largest probability; None where there are no images.
      accuracy: the fraction that was right.
    """

    lower: float
    upper: float
    images: int
    confidence: float | None
    accuracy: float | None


def calibration(predictions: Predictions, bins: int = BINS) -> list[Bin]:
    """How often the network is right when it is so sure: `bins` equal parts of 0..1. Needs numbers, not NaN."""
    confidence = predictions.probabilities.max(axis=1).astype(np.float64)
    right = right_ranks(predictions) == 0
    edges = np.arange(bins + 1) / bins
    places = np.searchsorted(edges[1:-1], confidence, side='left')  # upper edges belong to their bin
    rows = []
    for place in range(bins):
        inside = places == place
        means = (float(values[inside].mean()) if inside.any() else None for values in (confidence, right))
        rows.append(Bin(float(edges[place]), float(edges[place + 1]), int(inside.sum()), *means))
    return rows


def calibration_error(rows: Sequence[Bin]) -> float:
    """The expected calibration error, 0..1: the mean of |accuracy - confidence| over bins, weighted by images."""
    gaps = [row.images * abs(row.accuracy - row.confidence) for row in rows if row.images]  # type: ignore[operator]
    return float(sum(gaps) / sum(row.images for row in rows))


def ensemble(members: Iterable[Predictions]) -> Predictions:
    """The mean of the members' probabilities (paper section 6: "averaging the predictions of five similar CNNs").

    Raises:
      ValueError: they are of other images, or of other classes.
    """
    members = list(members)
    labels, shape = members[0].labels, members[0].probabilities.shape
    for member in members:
        if member.probabilities.shape != shape or not np.array_equal(member.labels, labels):
            raise ValueError('the members of an ensemble must be of the same images and classes')
    mean = np.mean([member.probabilities for member in members], axis=0, dtype=np.float64)
    return Predictions(mean.astype(members[0].probabilities.dtype), labels)
