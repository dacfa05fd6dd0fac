"""Measures the probabilities of a split: errors, a table by class, confusions, calibration; averages ensembles.

Pure NumPy, on the host. A class is called by the largest probability, of several equal ones the first; in errors they
share the image (training.step.score_top_k).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from alexnet_jax.evaluation.evaluator import Predictions, Result
from alexnet_jax.training.step import score_top_k

BINS = 15  # of confidence, as in Guo et al., "On calibration of modern neural networks" (2017), whose measure it is


def score_images(predictions: Predictions, k: int) -> np.ndarray:
    """Computes, float64 (n,), how far each right class is among the k most probable: 1, 0, or its share of a tie.

    Of several right classes that any of them is: where the last places are shared, the probability that a draw of
    those that share them has one.
    """
    if predictions.right is not None:
        return _score_any(predictions.probabilities, predictions.right, k)
    return score_top_k(predictions.probabilities, predictions.labels, _get_right(predictions), k)


def measure_errors(predictions: Predictions) -> Result:
    """Computes the loss, which is at most that of the dtype's least number, and the errors of all images."""
    right = _get_right(predictions)
    losses = -np.log(np.maximum(right, np.finfo(right.dtype).tiny).astype(np.float64))
    top1, top5 = (float((1 - score_images(predictions, k)).mean()) for k in (1, 5))
    return Result(len(right), float(losses.mean()), top1, top5)


def _score_any(scores: np.ndarray, right: np.ndarray, k: int) -> np.ndarray:
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    equal = scores == best
    sharing, wrong = equal.sum(axis=1), (equal & ~right).sum(axis=1)
    places = (k - (scores > best).sum(axis=1)).clip(0, sharing)
    missed = np.ones(len(scores))
    for drawn in range(k):  # each draw takes one of those that are left, and misses where it is wrong
        missed *= np.where(drawn < places, (wrong - drawn).clip(0) / (sharing - drawn).clip(1), 1)
    return 1 - missed


def _get_right(predictions: Predictions) -> np.ndarray:
    """Returns the right class's probability of each image, of several that of all together."""
    if predictions.right is not None:
        return np.where(predictions.right, predictions.probabilities, 0).sum(axis=1)
    return predictions.probabilities[np.arange(len(predictions.labels)), predictions.labels]


def count_confusions(predictions: Predictions) -> np.ndarray:
    """Counts, int64 (classes, classes), the images of class i that were called j; of several equal ones the first."""
    classes = predictions.probabilities.shape[1]
    pairs = predictions.labels.astype(np.int64) * classes + predictions.probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """One class's part of a test.

    Attributes:
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


def measure_classes(predictions: Predictions, classes: Sequence[str]) -> list[ClassRow]:
    """Makes a row for each of `classes`, in their order."""
    matrix, wrong1, wrong5 = count_confusions(predictions), *(1 - score_images(predictions, k) for k in (1, 5))
    rows = []
    for index, name in enumerate(classes):
        own = predictions.labels == index
        per_image = (wrong1[own], wrong5[own], predictions.probabilities[own, index])
        top1, top5, probability = (float(values.mean()) if own.any() else None for values in per_image)
        wrong = np.where(np.arange(len(classes)) == index, 0, matrix[index])
        most = int(wrong.argmax())
        taken_for = classes[most] if wrong[most] else ''
        images, called = int(own.sum()), int(matrix[:, index].sum())
        rows.append(ClassRow(index, name, images, top1, top5, probability, called, taken_for, int(wrong[most])))
    return rows


@dataclasses.dataclass(frozen=True)
class Bin:
    """The images whose most probable class has a probability above `lower` and up to `upper`.

    Attributes:
      images: how many.
      confidence: their mean largest probability; None where there are no images.
      accuracy: the fraction that was right; None where there are no images.
    """

    lower: float
    upper: float
    images: int
    confidence: float | None
    accuracy: float | None


def measure_calibration(predictions: Predictions, bins: int = BINS) -> list[Bin]:
    """Finds how often a network is right when it is so sure, in `bins` equal parts of 0..1. Needs numbers, not NaN."""
    confidence = predictions.probabilities.max(axis=1).astype(np.float64)
    right = score_images(predictions, 1)
    edges = np.arange(bins + 1) / bins
    places = np.searchsorted(edges[1:-1], confidence, side='left')  # upper edges belong to their bin
    rows = []
    for place in range(bins):
        inside = places == place
        means = (float(values[inside].mean()) if inside.any() else None for values in (confidence, right))
        rows.append(Bin(float(edges[place]), float(edges[place + 1]), int(inside.sum()), *means))
    return rows


def compute_calibration_error(rows: Sequence[Bin]) -> float:
    """Computes the expected calibration error, 0..1: |accuracy - confidence| of the bins, weighted by images."""
    gaps = [row.images * abs(row.accuracy - row.confidence) for row in rows if row.images]  # type: ignore[operator]
    return float(sum(gaps) / sum(row.images for row in rows))


def average_predictions(members: Sequence[Predictions]) -> Predictions:
    """Averages the members' probabilities (paper section 6: "averaging the predictions of five similar CNNs").

    Raises:
      ValueError: they are of other images, or of other classes.
    """
    labels, shape = members[0].labels, members[0].probabilities.shape
    for member in members:
        if member.probabilities.shape != shape or not np.array_equal(member.labels, labels):
            raise ValueError('the members of an ensemble must be of the same images and classes')
    mean = np.mean([member.probabilities for member in members], axis=0, dtype=np.float64)
    return dataclasses.replace(members[0], probabilities=mean.astype(members[0].probabilities.dtype))
