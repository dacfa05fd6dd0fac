"""Statistics of the training data: how labels spread, whether they have to do with the images, the pixels' range.

They are measured on the training batches themselves, so that everything between the files and the network is included.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from alexnet_jax.data.pipeline import HostBatch

# Images that are read, at most: decoding more would take most of the minute that a diagnosis may. With many classes
# more are read, because the probe learns nothing of a class that it has seen once.
MIN_IMAGES, MAX_IMAGES, IMAGES_PER_CLASS = 2000, 4000, 4
SIDE = 14  # of the thumbnails, a pixel of which is 16 of a 224 crop
CELLS, DIRECTIONS = 4, 8  # of the histograms of edges
MIN_CLASS_IMAGES = 10  # of a class, for the probe: it learns from half of them (docs/doctor.md has what fewer give)
PERMUTATIONS = 20
_RIDGE = 0.1  # of the probe, in multiples of the mean square of its features over all images


@dataclasses.dataclass(frozen=True)
class Probe:
    """Accuracy of a linear classifier of thumbnails on images held out, beside its accuracy with permuted labels.

    `sigmas` is how far its mean score of the right class is above that with permuted labels, in standard deviations of
    the latter over the permutations: around 0 where labels and images have nothing to do with each other.
    """

    accuracy: float  # 0..1
    permuted_accuracy: float  # 0..1
    sigmas: float


@dataclasses.dataclass(frozen=True)
class DataStats:
    """Statistics of some training batches."""

    images: int  # different records among them, of one epoch
    classes_seen: int
    classes_possible: int  # how many could be seen in so many images
    entropy: float  # of the labels' frequencies, in nats
    largest: float  # the most frequent label's share, 0..1
    order: float  # the labels' mean entropy within a batch over that in random order; NaN where the latter is 0
    pixel_range: tuple[int, int]  # (lowest, highest)
    channel_means: np.ndarray  # (3,)
    pixel_mean: float
    pixel_spread: float  # standard deviation
    probe_images: int  # those among `images` whose class has MIN_CLASS_IMAGES of them or more
    probe: Probe | None  # of them; None with fewer than two classes, too few images, or all images the same


def measure_data(
    batches: Iterator[HostBatch], *, classes: int, examples: int, info: Callable[[str], None]
) -> DataStats:
    """Reads MIN_IMAGES to MAX_IMAGES images of `batches`, or an epoch of `examples`, and measures them."""
    wanted = min(examples, MAX_IMAGES, max(MIN_IMAGES, IMAGES_PER_CLASS * classes))
    info(f'reading {wanted} training images')
    features, labels = [], []
    batch_labels: list[np.ndarray] = []
    levels = np.zeros((3, 256), np.int64)  # how often each channel has each value
    seen: set[int] = set()
    while sum(len(batch) for batch in batch_labels) < wanted:
        batch = next(batches)
        # At the seam of two epochs an image comes twice: held out and learned from, it would be recognised.
        records, first = np.unique(batch.records, return_index=True)
        new = np.sort([i for record, i in zip(records.tolist(), first, strict=True) if record not in seen]).astype(int)
        seen.update(records.tolist())
        for channel in range(3):  # every third row and column
            levels[channel] += np.bincount(batch.images[:, ::3, ::3, channel].ravel(), minlength=256)
        batch_labels.append(batch.labels)
        features.append(describe_images(batch.images[new]))
        labels.append(batch.labels[new])
    labels_seen, values = np.concatenate(labels), np.arange(256)
    counts = np.bincount(labels_seen, minlength=classes)
    common = counts[labels_seen] >= MIN_CLASS_IMAGES
    count, present = int(levels.sum()), np.flatnonzero(levels.any(axis=0))
    pixel_mean = float((levels @ values).sum() / count)
    return DataStats(
        images=len(labels_seen),
        classes_seen=int((counts > 0).sum()),
        classes_possible=min(classes, len(labels_seen)),
        entropy=compute_entropy(counts),
        largest=float(counts.max() / len(labels_seen)),
        order=_measure_order(batch_labels),
        pixel_range=(int(present[0]), int(present[-1])),
        channel_means=levels @ values / (count / 3),
        pixel_mean=pixel_mean,
        pixel_spread=math.sqrt(max(0.0, int((levels @ values**2).sum()) / count - pixel_mean**2)),
        probe_images=int(common.sum()),
        probe=fit_probe(np.concatenate(features)[common], labels_seen[common], classes=classes),
    )


def compute_entropy(counts: np.ndarray) -> float:
    """Computes -sum p ln p of the frequencies of `counts` (classes,), in nats."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def _measure_order(batch_labels: list[np.ndarray]) -> float:
    """Computes `DataStats.order`."""
    labels = np.concatenate(batch_labels)
    ends = np.cumsum([len(batch) for batch in batch_labels])[:-1]

    def measure_within(labels: np.ndarray) -> float:
        return float(np.mean([compute_entropy(np.bincount(batch)) for batch in np.split(labels, ends)]))

    random = np.random.default_rng(0)
    expected = float(np.mean([measure_within(random.permutation(labels)) for _ in range(5)]))
    return measure_within(labels) / expected if expected else math.nan


def describe_images(images: np.ndarray) -> np.ndarray:
    """Computes features of uint8 (b, h, w, 3), float32 (b, features): a thumbnail, and the strength of edges by place.

    Edges by direction, because a class may be a shape in any colour at any place, which no average of pixels shows.
    """
    small = _shrink(images, 4 * SIDE)
    thumbnails = small.reshape(len(small), SIDE, 4, SIDE, 4, 3).mean((2, 4))
    grey = small.mean(3)
    down, right = np.diff(grey, axis=1)[:, :, :-1], np.diff(grey, axis=2)[:, :-1]
    direction = ((np.arctan2(down, right) % np.pi) / np.pi * DIRECTIONS).astype(int) % DIRECTIONS
    cells = np.arange(grey.shape[1] - 1) * CELLS // (grey.shape[1] - 1)
    bins = CELLS * CELLS * DIRECTIONS
    places = (cells[:, None] * CELLS + cells) * DIRECTIONS + direction + np.arange(len(grey))[:, None, None] * bins
    edges = np.bincount(places.ravel(), np.hypot(down, right).ravel(), minlength=len(grey) * bins)
    parts = [thumbnails.reshape(len(small), SIDE * SIDE * 3), np.sqrt(edges.reshape(len(grey), bins))]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _shrink(images: np.ndarray, side: int) -> np.ndarray:
    """Averages squares of the middle of uint8 (b, h, w, 3) to float32 (b, side, side, 3)."""
    if images.shape[1] < side:  # crops of 24 and 32 become whole multiples of 56
        images = images.repeat(7, axis=1).repeat(7, axis=2)
    square = images.shape[1] // side
    edge = (images.shape[1] - square * side) // 2
    middle = images[:, edge : edge + square * side, edge : edge + square * side]
    rows = middle.reshape(len(images), side, square, square * side * 3).sum(2, dtype=np.uint16)  # long rows are fast
    return rows.reshape(len(images), side, side, square, 3).sum(3, dtype=np.float32) / np.float32(square**2)


def fit_probe(features: np.ndarray, labels: np.ndarray, *, classes: int) -> Probe | None:
    """Fits a ridge regression of the labels on the features, on one half of the images, and tests it on the other.

    One decomposition serves all permutations: the prediction is linear in the labels it was learned from.

    `features` are float32 (n, f), `labels` int (n,); None as `DataStats.probe`.
    """
    n = len(labels)
    if n < 20 or len(np.unique(labels)) < 2 or not features.std(axis=0).any():
        return None
    random = np.random.default_rng(0)
    order = random.permutation(n)
    x = features[order].astype(np.float64)
    x -= x.mean(axis=0)
    x /= np.maximum(x.std(axis=0), 1e-6 * x.std())
    labels = labels[order]
    half = np.arange(n) < n // 2
    smoothers = []  # (tested, learned): multiplied by the targets of the images learned from, they predict those tested
    for test in (half, ~half):
        learned = x[~test]
        gram = learned @ learned.T
        ridge = _RIDGE * np.trace(gram) / len(gram)
        smoothers.append((test, np.linalg.solve(gram + ridge * np.eye(len(gram)), learned @ x[test].T).T))

    def score(labels: np.ndarray) -> tuple[float, float]:
        """Returns (mean score of the right class, accuracy) of all images, each held out once."""
        targets = np.eye(classes)[labels]
        right, hit = np.empty(n), np.empty(n)
        for test, smoother in smoothers:
            base = targets[~test].mean(axis=0)
            scores = smoother @ (targets[~test] - base)
            right[test] = scores[np.arange(len(scores)), labels[test]]
            hit[test] = (scores + base).argmax(axis=1) == labels[test]
        return float(right.mean()), float(hit.mean())

    mean_score, accuracy = score(labels)
    permuted = [score(random.permutation(labels)) for _ in range(PERMUTATIONS)]
    permuted_scores, permuted_accuracies = np.transpose(permuted)
    spread = float(permuted_scores.std(ddof=1))
    return Probe(
        accuracy=accuracy,
        permuted_accuracy=float(permuted_accuracies.mean()),
        sigmas=(mean_score - float(permuted_scores.mean())) / spread if spread else 0.0,
    )
