"""Batches as a pure function of the step, read ahead by Grain's threads.

The record and the augmentation at any place of any batch follow from (seed, step) alone, so a run that stops needs to
remember nothing of its data, and any number of hosts and workers sees the same images. Epochs follow one another
without a gap: each record comes exactly once in every epoch, also where the batch does not divide it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

import grain
import numpy as np

from alexnet_jax import InputError
from alexnet_jax.data.augment import CROP, draw, limited, offsets_of
from alexnet_jax.data.decode import Window, record_window
from alexnet_jax.data.source import Records
from alexnet_jax.data.statistics import RECORD

READ_AHEAD = 4  # batches in flight: at 128 images 77 MB
THREADS = 2  # decoding releases the GIL; two threads already outrun this network on any CPU that they share with it


def window_of(source: Records) -> Window:
    """What reads the images of `source`."""
    if not source.photos:
        return record_window
    from alexnet_jax.data.photo import photo_window  # here, because prepared records need no Pillow

    return photo_window


def whole(source: Records, index: int, *, record_size: int) -> np.ndarray:
    """uint8 (record_size, record_size, 3) RGB of one image of `source`."""
    pixels = np.empty((record_size, record_size, 3), np.uint8)
    window_of(source)(source[index][0], pixels, record_size=record_size)
    return pixels


@dataclasses.dataclass(frozen=True)
class HostBatch:
    """Augmented training images on the host.

    Attributes:
      images: uint8 (b, crop_size, crop_size, 3), cropped and flipped, RGB.
      labels: int32 (b,).
      lighting: float32 (b, 3), to be added to the pixels, 0..255 units.
      records: int64 (b,), which records of the training split these are.
    """

    images: np.ndarray
    labels: np.ndarray
    lighting: np.ndarray
    records: np.ndarray


@dataclasses.dataclass(frozen=True)
class TrainingBatches:
    """`self[step]` is the global batch of `step`, or this host's rows of it.

    Attributes:
      source: the training records.
      batch_size: images of a global batch, of all hosts together.
      seed: of shuffling and augmentation.
      lighting_basis: float32 (3, 3) of `augment.lighting_basis`, or zeros for none.
      window: what reads the source's images, of `window_of`.
      crop_size: side of the crops.
      record_size: side of the records that they are cut out of.
      rows: the rows of the global batch that this host makes; None: all of them.
      images_per_crop: how many neighbours in an epoch's order share crop and flip (model.variants.Variant).
      places: (top, left) of the crops to choose from; None: all.
      flips: whether images are mirrored.
      lit_steps: lighting is zero from this step on; None: never.
    """

    source: Records
    batch_size: int
    seed: int
    lighting_basis: np.ndarray
    window: Window = record_window
    _: dataclasses.KW_ONLY
    crop_size: int = CROP
    record_size: int = RECORD
    rows: range | None = None
    images_per_crop: int = 1
    places: tuple[tuple[int, int], ...] | None = None
    flips: bool = True
    lit_steps: int | None = None

    def __post_init__(self) -> None:
        if self.rows is not None and not set(self.rows) <= set(range(self.batch_size)):
            raise ValueError(f'{self.rows} are not rows of a batch of {self.batch_size}')

    def __len__(self) -> int:
        return np.iinfo(np.int32).max  # training decides when it has enough

    def __getitem__(self, step: int) -> HostBatch:
        rows = range(self.batch_size) if self.rows is None else self.rows
        places = [divmod(step * self.batch_size + row, len(self.source)) for row in rows]
        records = self.records(step).tolist()
        # Each kind of work for the whole batch at once: taking turns, each would find the processor's caches full of
        # the others' code and data, which costs 20 us an image on one thread, 70 on two.
        encoded = [self.source[record] for record in records]
        chances, offsets = [], offsets_of(self.crop_size, record=self.record_size)
        for (epoch, place), record in zip(places, records, strict=True):
            group = place // self.images_per_crop if self.images_per_crop > 1 else None
            chance = draw(seed=self.seed, epoch=epoch, record=record, crop_group=group, offsets=offsets)
            chances.append(limited(chance, places=self.places, flips=self.flips, offsets=offsets))
        images = np.empty((len(rows), self.crop_size, self.crop_size, 3), np.uint8)
        lighting = np.zeros((len(rows), 3), np.float32)
        for i, ((data, _), chance) in enumerate(zip(encoded, chances, strict=True)):
            with _naming(records[i]):
                self.window(
                    data,
                    images[i],
                    top=chance.top,
                    left=chance.left,
                    mirrored=chance.flip,
                    record_size=self.record_size,
                )
            if self.lit_steps is None or step < self.lit_steps:
                lighting[i] = self.lighting_basis @ chance.normals
        labels = np.array([label for _, label in encoded], np.int32)
        return HostBatch(images, labels, lighting, np.array(records, np.int64))

    def records(self, step: int) -> np.ndarray:
        """int64 (b,): which records of the training split `self[step]` is made of."""
        rows = range(self.batch_size) if self.rows is None else self.rows
        places = [divmod(step * self.batch_size + row, len(self.source)) for row in rows]
        orders = {epoch: epoch_order(len(self.source), seed=self.seed, epoch=epoch) for epoch, _ in places}
        return np.array([orders[epoch][place] for epoch, place in places], np.int64)

    def read_from(self, step: int, *, threads: int = THREADS, read_ahead: int = READ_AHEAD) -> Iterator[HostBatch]:
        """The batches of `step`, step + 1, ..., decoded by `threads`, `read_ahead` batches ahead, in order."""
        ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=read_ahead)
        return iter(grain.MapDataset.source(self).slice(slice(step, None)).to_iter_dataset(ahead))


@contextlib.contextmanager
def _naming(record: int) -> Iterator[None]:
    """Says which record it was that could not be decoded."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise InputError(f'record {record} is no image that can be decoded: {str(error).splitlines()[0]}') from error


@functools.lru_cache(maxsize=2)  # a batch may span two epochs
def epoch_order(records: int, *, seed: int, epoch: int) -> np.ndarray:
    """int64 (records,): the order of an epoch, a uniformly drawn permutation."""
    # The third number keeps this stream apart from the augmentation's.
    return np.random.default_rng([seed, epoch, 0x0DE4]).permutation(records)


@dataclasses.dataclass(frozen=True)
class EvaluationBatch:
    """Whole records in order, the last batch filled up.

    Attributes:
      images: uint8 (b, record_size, record_size, 3), RGB; zeros where filled up.
      labels: int32 (b,).
      valid: bool (b,), False where filled up.
    """

    images: np.ndarray
    labels: np.ndarray
    valid: np.ndarray


@dataclasses.dataclass(frozen=True)
class EvaluationBatches:
    """Every record of a split exactly once, in order, in ceil(n / batch_size) batches of one shape.

    `window`, `record_size` and `rows` as in `TrainingBatches`.
    """

    source: Records
    batch_size: int
    window: Window = record_window
    _: dataclasses.KW_ONLY
    record_size: int = RECORD
    rows: range | None = None

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def __getitem__(self, index: int) -> EvaluationBatch:
        rows = range(self.batch_size) if self.rows is None else self.rows
        images = np.zeros((len(rows), self.record_size, self.record_size, 3), np.uint8)
        labels = np.zeros(len(rows), np.int32)
        valid = np.zeros(len(rows), bool)
        start = index * self.batch_size + rows.start
        for row, record in enumerate(range(start, min(start + len(rows), len(self.source)))):
            jpeg, labels[row] = self.source[record]
            with _naming(record):
                self.window(jpeg, images[row], record_size=self.record_size)
            valid[row] = True
        return EvaluationBatch(images, labels, valid)

    def read(self) -> Iterator[EvaluationBatch]:
        """All batches, decoded ahead by threads."""
        ahead = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=READ_AHEAD)
        return iter(grain.MapDataset.source(self).to_iter_dataset(ahead))
