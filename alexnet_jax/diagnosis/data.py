"""What training is fed: the labels' spread, whether they have to do with the images, the pixels' range.

Read from the training batches themselves, so that whatever is between the files and the network is in it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from alexnet_jax.data.pipeline import HostBatch

# Images looked at, at most: of more, decoding would take most of the minute that a diagnosis may. Of many classes more,
# because the probe learns nothing of a class that it has seen once.
IMAGES, MOST_IMAGES, OF_EACH_CLASS = 2000, 4000, 4
SIDE = 14  # of the thumbnails, a pixel of which is 16 of a 224 crop
CELLS, DIRECTIONS = 4, 8  # of the histograms of edges
PERMUTATIONS = 20
_RIDGE = 0.1  # of the probe, in multiples of the mean square of its features over all images


@dataclasses.dataclass(frozen=True)
class DataLook:
    """What some training batches hold.

    Attributes:
      images: different records among them, of one epoch.
      classes_seen: different labels.
      classes_possible: how many could be seen in so many images.
      entropy: of the labels' frequencies, in nats.
      largest: the most frequent label's share, 0..1.
      order: mean entropy of the labels within a batch, as a fraction of what it is with the labels in random order;
        NaN where that is 0.
      pixel_range: (lowest, highest) value.
      channel_means: of the pixels' three channels, (3,).
      pixel_mean, pixel_spread: of all values; the spread is the standard deviation.
      probe: see `Probe`; None with fewer than two classes, too few images, or all images the same.
    """

    images: int
    classes_seen: int
    classes_possible: int
    entropy: float
    largest: float
    order: float
    pixel_range: tuple[int, int]
    channel_means: np.ndarray
    pixel_mean: float
    pixel_spread: float
    probe: Probe | None


@dataclasses.dataclass(frozen=True)
class Probe:
    """A linear classifier of small thumbnails, tested on images held out, beside what it does with permuted labels.

    Attributes:
      accuracy, permuted_accuracy: fraction of the images held out that it gets right, 0..1.
      sigmas: how far its mean score of the right class is above that with permuted labels, in standard deviations of
        the latter over the permutations: around 0 where labels and images have nothing to do with each other.
    """

    accuracy: float
    permuted_accuracy: float
    sigmas: float


def look_at_data(
    batches: Iterator[HostBatch], *, classes: int, examples: int, say: Callable[[str], None] = lambda text: None
) -> DataLook:
    """Looks at IMAGES images of `batches`, or at an epoch of `examples`."""
    wanted = min(examples, MOST_IMAGES, max(IMAGES, OF_EACH_CLASS * classes))
    features, labels, batch_labels, pixels = [], [], [], _Pixels()
    seen: set[int] = set()
    say(f'reading {wanted} training images')
    taken = 0
    while taken < wanted:
        batch = next(batches)
        taken += len(batch.labels)
        # At the seam of two epochs an image comes twice: held out and learned from, it would be recognised.
        first = {record: i for i, record in reversed(list(enumerate(batch.records.tolist())))}
        fresh = sorted(first[record] for record in first.keys() - seen)
        seen |= first.keys()
        pixels.add(batch.images)
        batch_labels.append(batch.labels)
        if fresh:
            features.append(describe(batch.images[fresh]))
            labels.append(batch.labels[fresh])
    every = np.concatenate(labels)
    counts = np.bincount(every, minlength=classes)
    return DataLook(
        images=len(every),
        classes_seen=int((counts > 0).sum()),
        classes_possible=min(classes, len(every)),
        entropy=entropy(counts),
        largest=float(counts.max() / len(every)),
        order=_order(batch_labels),
        pixel_range=(pixels.lowest, pixels.highest),
        channel_means=pixels.channel_means,
        pixel_mean=pixels.mean,
        pixel_spread=pixels.spread,
        probe=probe(np.concatenate(features), every, classes=classes),
    )


class _Pixels:
    """Running statistics of uint8 pixels, every third row and column of them."""

    def __init__(self) -> None:
        self.lowest, self.highest = 255, 0
        self._count, self._squares = 0, 0
        self._sums = np.zeros(3, np.int64)

    def add(self, images: np.ndarray) -> None:
        some = images[:, ::3, ::3].astype(np.int64)
        self.lowest, self.highest = min(self.lowest, int(some.min())), max(self.highest, int(some.max()))
        self._count += some.size
        self._sums += some.sum((0, 1, 2))
        self._squares += int((some * some).sum())

    @property
    def channel_means(self) -> np.ndarray:
        return self._sums / (self._count / 3)

    @property
    def mean(self) -> float:
        return float(self._sums.sum() / self._count)

    @property
    def spread(self) -> float:
        return math.sqrt(max(0.0, self._squares / self._count - self.mean**2))


def entropy(counts: np.ndarray) -> float:
    """-sum p ln p of the frequencies of `counts` (classes,), in nats."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def _order(batch_labels: list[np.ndarray]) -> float:
    """`DataLook.order`."""
    every = np.concatenate(batch_labels)
    ends = np.cumsum([len(labels) for labels in batch_labels])[:-1]

    def within(labels: np.ndarray) -> float:
        return float(np.mean([entropy(np.bincount(part)) for part in np.split(labels, ends)]))

    random = np.random.default_rng(0)
    chance = np.mean([within(random.permutation(every)) for _ in range(5)])
    return within(every) / float(chance) if chance else math.nan


def describe(images: np.ndarray) -> np.ndarray:
    """uint8 (b, h, w, 3) -> float32 (b, features): a thumbnail, and how strong edges of which direction are where.

    Edges, because a class may be a shape in any colour at any place, which no average of pixels shows.
    """
    small = _shrunk(images, 4 * SIDE)
    thumbnails = small.reshape(len(small), SIDE, 4, SIDE, 4, 3).mean((2, 4))
    grey = small.mean(3)
    down, right = (np.diff(grey, axis=1)[:, :, :-1], np.diff(grey, axis=2)[:, :-1])
    direction = ((np.arctan2(down, right) % np.pi) / np.pi * DIRECTIONS).astype(int) % DIRECTIONS
    strength = np.hypot(down, right)
    cells = (np.arange(grey.shape[1] - 1) * CELLS // (grey.shape[1] - 1)).astype(int)
    place = (cells[:, None] * CELLS + cells[None, :])[None] * DIRECTIONS + direction
    bins = CELLS * CELLS * DIRECTIONS
    rows = np.arange(len(grey))[:, None, None] * bins + place
    edges = np.bincount(rows.ravel(), strength.ravel(), minlength=len(grey) * bins).reshape(len(grey), bins)
    parts = [thumbnails.reshape(len(small), -1), np.sqrt(edges)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """float32 (b, side, side, 3): means over squares of the middle of uint8 (b, h, w, 3)."""
    if images.shape[1] < side:  # crops of 24 and 32 become whole multiples of 56
        images = images.repeat(7, axis=1).repeat(7, axis=2)
    square = images.shape[1] // side
    edge = (images.shape[1] - square * side) // 2
    middle = images[:, edge : edge + square * side, edge : edge + square * side].astype(np.float32)
    return middle.reshape(len(images), side, square, side, square, 3).mean((2, 4))


def probe(features: np.ndarray, labels: np.ndarray, *, classes: int) -> Probe | None:
    """Ridge regression of the labels on the features, learned on one half of the images and tested on the other.

    One decomposition serves all permutations: the prediction is linear in the labels it was learned from.

    Args:
      features: float32 (n, f).
      labels: int (n,).
      classes: number of classes.
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
    halves = np.arange(n) < n // 2
    smooth = [(test, _smoother(x[~test], x[test])) for test in (halves, ~halves)]

    def scores(labels: np.ndarray) -> tuple[float, float]:
        """(mean score of the right class, accuracy) of all images, each held out once."""
        targets = np.eye(classes)[labels]
        right = np.empty(n)
        hit = np.empty(n)
        for test, smoother in smooth:
            base = targets[~test].mean(axis=0)
            score = smoother @ (targets[~test] - base)
            own = labels[test]
            right[test] = score[np.arange(len(own)), own]
            hit[test] = (score + base).argmax(axis=1) == own
        return float(right.mean()), float(hit.mean())

    mean_score, accuracy = scores(labels)
    permuted = np.array([scores(random.permutation(labels)) for _ in range(PERMUTATIONS)])
    spread = float(permuted[:, 0].std(ddof=1))
    return Probe(
        accuracy=accuracy,
        permuted_accuracy=float(permuted[:, 1].mean()),
        sigmas=(mean_score - float(permuted[:, 0].mean())) / spread if spread else 0.0,
    )


def _smoother(learned: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """(tested, learned): what turns the targets of the images learned from into the predictions for those tested."""
    gram = learned @ learned.T
    ridge = _RIDGE * np.trace(gram) / len(gram)
    return np.linalg.solve(gram + ridge * np.eye(len(gram)), learned @ tested.T).T
