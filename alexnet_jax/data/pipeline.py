"""Makes batches as a pure function of the step, read ahead by Grain's threads.

The record and the augmentation at any row of any batch follow from (seed, step) alone, so a run that stops needs to
remember nothing of its data, and any number of hosts and workers sees the same images. Epochs follow one another
without a gap: each record comes exactly once in every epoch, also where the batch does not divide it.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from alexnet_jax.data.augment import CROP, count_offsets, sample_augmentations
from alexnet_jax.data.cache import CachedSource
from alexnet_jax.data.corrupted import PixelSource
from alexnet_jax.data.dataset import Source
from alexnet_jax.data.decode import CropDecoder, decode_indexed, decode_record_crop, get_crop_decoder
from alexnet_jax.data.raw import RawSource
from alexnet_jax.data.statistics import RECORD

READ_AHEAD = 4  # batches in flight: at 128 images 77 MB
THREADS = 2  # decoding releases the GIL; two threads already outrun this network on any CPU that they share with it


def choose_records(source: Source, count: int) -> list[int]:
    """Chooses `count` indices of a split's records, sorted, the same ones always; each class has its share of them.

    To within one it is its share of ten times as many, drawn at random, whose labels are read: of a split that has no
    more, of the split. `InputError` where a record cannot be read.
    """
    drawn = np.random.default_rng(0x7E57).permutation(len(source))[: 10 * count]
    labels = [source[index][1] for index in drawn.tolist()]
    by_class = drawn[np.argsort(labels, kind='stable')]
    return sorted(by_class[np.arange(count) * len(drawn) // count].tolist())


def read_whole_image(source: Source, index: int, *, record_size: int) -> np.ndarray:
    """Reads one image of `source`: uint8 (record_size, record_size, 3) RGB."""
    pixels = np.empty((1, record_size, record_size, 3), np.uint8)
    _read_crops(source, get_crop_decoder(source), [index], pixels, record_size=record_size)
    return pixels[0]


@dataclasses.dataclass(frozen=True)
class HostBatch:
    """Augmented training images on the host."""

    images: np.ndarray  # uint8 (b, crop_size, crop_size, 3), cropped, RGB, not mirrored yet
    labels: np.ndarray  # int32 (b,)
    lighting: np.ndarray  # float32 (b, 3), to be added to the pixels, 0..255 units
    records: np.ndarray  # int64 (b,), indices of the images in the training split
    places: np.ndarray  # int32 (b, 3), each crop's top, left and whether it is mirrored


@dataclasses.dataclass(frozen=True)
class TrainingBatches:
    """Makes the training batches: `self[step]` is the global batch of `step`, or this host's rows of it."""

    source: Source
    batch_size: int  # of all hosts together
    seed: int  # of shuffling and augmentation
    lighting_basis: np.ndarray  # float32 (3, 3) of `augment.lighting_basis`, or zeros for none
    decode_crop: CropDecoder = decode_record_crop  # of `get_crop_decoder(source)`
    _: dataclasses.KW_ONLY
    crop_size: int = CROP  # side of the crops
    record_size: int = RECORD  # side of the records that they are cut out of
    rows: range | None = None  # of the global batch, those that this host makes; None: all
    images_per_crop: int = 1  # how many neighbours in an epoch's order share crop and flip (model.spec.Variant)
    offsets: tuple[tuple[int, int], ...] | None = None  # (top, left) of the crops to choose from; None: all
    flips: bool = True  # whether images are mirrored
    lighting_steps: int | None = None  # number of first steps with lighting, which is zero afterwards; None: all steps

    def __post_init__(self) -> None:
        if self.rows is not None and not set(self.rows) <= set(range(self.batch_size)):
            raise ValueError(f'{self.rows} are not rows of a batch of {self.batch_size}')

    def __len__(self) -> int:
        return np.iinfo(np.int32).max  # training decides when it has enough

    def __getitem__(self, step: int) -> HostBatch:
        records, (epochs, indices) = self.records(step), self._locate_rows(step)
        places, normals = sample_augmentations(
            seed=self.seed,
            epochs=epochs,
            records=records,
            crop_groups=indices // self.images_per_crop if self.images_per_crop > 1 else None,
            offset_count=count_offsets(self.crop_size, record=self.record_size),
            offsets=self.offsets,
            flips=self.flips,
        )
        if self.lighting_steps is None or step < self.lighting_steps:
            # A product for each image: what an image gets must not depend on how many the host makes.
            lighting = np.matmul(self.lighting_basis, normals[:, :, None])[:, :, 0].astype(np.float32)
        else:
            lighting = np.zeros((len(records), 3), np.float32)
        images = np.empty((len(records), self.crop_size, self.crop_size, 3), np.uint8)
        options: Any = {'places': places, 'record_size': self.record_size}
        labels = _read_crops(self.source, self.decode_crop, records.tolist(), images, **options)
        return HostBatch(images, labels, lighting, records, places)

    def _locate_rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the epochs, and the indices in the epochs' orders, of the rows of `self[step]`: int64 (b,) each."""
        rows = range(self.batch_size) if self.rows is None else self.rows
        epochs, indices = np.divmod(step * self.batch_size + np.array(rows, np.int64), len(self.source))
        return epochs, indices

    def records(self, step: int) -> np.ndarray:
        """Returns int64 (b,): the indices, in the training split, of the records in `self[step]`."""
        epochs, indices = self._locate_rows(step)
        records = np.empty_like(indices)
        for epoch in np.unique(epochs).tolist():
            order = epoch_order(len(self.source), seed=self.seed, epoch=epoch)
            records[epochs == epoch] = order[indices[epochs == epoch]]
        return records

    def read_from(self, step: int, *, threads: int = THREADS, read_ahead: int = READ_AHEAD) -> Iterator[HostBatch]:
        """Reads the batches of `step`, step + 1, ... in order, decoded by `threads`, `read_ahead` batches ahead."""
        return _read_ahead(self, start=step, threads=threads, read_ahead=read_ahead)


@functools.lru_cache(maxsize=2)  # a batch may span two epochs
def epoch_order(records: int, *, seed: int, epoch: int) -> np.ndarray:
    """Returns int64 (records,): the order of an epoch, a uniformly random permutation."""
    # The third number keeps this stream apart from the augmentation's.
    return np.random.default_rng([seed, epoch, 0x0DE4]).permutation(records)


@dataclasses.dataclass(frozen=True)
class EvaluationBatch:
    """Whole records in order, the last batch filled up."""

    images: np.ndarray  # uint8 (b, record_size, record_size, 3), RGB; zeros where filled up
    labels: np.ndarray  # int32 (b,)
    valid: np.ndarray  # bool (b,), False where filled up


@dataclasses.dataclass(frozen=True)
class EvaluationBatches:
    """Makes batches of every record of a split exactly once, in order: ceil(n / batch_size) of one shape.

    `decode_crop`, `record_size` and `rows` as in `TrainingBatches`; `chosen` are the records' indices, None: all.
    """

    source: Source
    batch_size: int
    decode_crop: CropDecoder = decode_record_crop
    _: dataclasses.KW_ONLY
    record_size: int = RECORD
    rows: range | None = None
    chosen: Sequence[int] | None = None

    def __len__(self) -> int:
        return -(-len(self._records) // self.batch_size)

    @property
    def _records(self) -> Sequence[int]:
        return range(len(self.source)) if self.chosen is None else self.chosen

    def __getitem__(self, index: int) -> EvaluationBatch:
        rows = range(self.batch_size) if self.rows is None else self.rows
        images = np.zeros((len(rows), self.record_size, self.record_size, 3), np.uint8)
        labels, valid = np.zeros(len(rows), np.int32), np.zeros(len(rows), bool)
        start = index * self.batch_size + rows.start
        records = self._records[start : start + len(rows)]
        count, size = len(records), self.record_size
        labels[:count] = _read_crops(self.source, self.decode_crop, records, images[:count], record_size=size)
        valid[:count] = True
        return EvaluationBatch(images, labels, valid)

    def read(self) -> Iterator[EvaluationBatch]:
        """Reads all batches, decoded ahead by threads: by more of them where records are made and not only read."""
        if isinstance(self.source, PixelSource):
            threads = max(THREADS, self.source.threads)
            return _read_ahead(self, threads=threads, read_ahead=threads + READ_AHEAD - THREADS)
        return _read_ahead(self)


def _read_crops(
    source: Source,
    decode_crop: CropDecoder,
    records: Sequence[int],
    images: np.ndarray,
    *,
    places: np.ndarray | None = None,
    record_size: int,
) -> np.ndarray:
    """Fills `images`, uint8 (b, side, side, 3), with the crops of `records` at `places`, None: (0, 0); returns labels.

    Raises:
      InputError: a record cannot be read or decoded; says which.
    """
    corners = [(0, 0)] * len(records) if places is None else places[:, :2].tolist()
    crops = zip(records, images, corners, strict=True)
    if isinstance(source, CachedSource | RawSource | PixelSource):  # pixels
        source.prefetch(records)
        for record, image, (top, left) in crops:
            source.read_crop(record, image, top=top, left=left)
        return source.labels[records]
    # Each kind of work for the whole batch at once: taking turns, each would find the processor's caches full of the
    # others' code and data, which costs 20 us an image on one thread, 70 on two.
    encoded = [source[record] for record in records]
    for (record, image, (top, left)), (data, _) in zip(crops, encoded, strict=True):
        decode_indexed(decode_crop, data, image, record=record, top=top, left=left, record_size=record_size)
    return np.array([label for _, label in encoded], np.int32)


def _read_ahead(batches: Any, *, start: int = 0, threads: int = THREADS, read_ahead: int = READ_AHEAD) -> Iterator[Any]:
    """Reads `batches` from `start` on, in order, by threads."""
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=read_ahead)
    return iter(grain.MapDataset.source(batches).slice(slice(start, None)).to_iter_dataset(options))
