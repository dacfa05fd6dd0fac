"""The programs of the input benchmark: each stage alone on one thread, and the whole with one thread and more."""

import collections
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np
import simplejpeg

from alexnet_jax.benchmark.photos import PhotoFolder
from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.raw_records import FirstRecords, write_raw_shard
from alexnet_jax.benchmark.sampling import Program, make_iterator_program
from alexnet_jax.data.augment import CROP, OFFSET_COUNT, lighting_basis, sample_augmentations
from alexnet_jax.data.cache import CachedSource
from alexnet_jax.data.dataset import DataSource, open_dataset
from alexnet_jax.data.decode import CropDecoder, get_crop_decoder
from alexnet_jax.data.photo import decode_photo_crop, photo_to_jpeg, square_image
from alexnet_jax.data.pipeline import READ_AHEAD, TrainingBatches, read_whole_image
from alexnet_jax.data.raw import RawSource
from alexnet_jax.data.statistics import RECORD, Statistics
from alexnet_jax.sharding.mesh import make_mesh, place_batch
from alexnet_jax.training.step import Batch


def make_input_programs(setting: Setting) -> dict[str, Program]:
    """Makes programs that handle `setting.batch` images a call, named as in `input_figures.STAGES`."""
    dataset, size = open_dataset(setting.dataset, data_dir=setting.data_dir), setting.batch
    records, photos = dataset.records('train'), PhotoFolder(setting.photos)
    assert isinstance(records, DataSource)  # encoded, as `measure_input_pipeline` has looked
    basis = lighting_basis(dataset.rgb_covariance, scale='standard_deviation', strength=0.1)
    images = np.random.default_rng(0).integers(256, size=(size, CROP, CROP, 3), dtype=np.uint8)
    arrays: Any = images, np.zeros(size, np.int32), np.zeros((size, 3), np.float32), np.zeros((size, 3), np.int32)
    mesh, epochs, shard = make_mesh(1, 1), itertools.count(1), pathlib.Path(setting.scratch) / 'raw.npy'
    labels = write_raw_shard(records, shard)
    raw = RawSource(setting.dataset, 'train', shards=[(shard, len(labels))], labels=labels, record_size=RECORD)
    cached = CachedSource(FirstRecords(records), record_size=RECORD)
    for index in range(len(cached)):  # which training does in its first epoch
        read_whole_image(cached, index, record_size=RECORD)

    def draw() -> None:
        _, normals = sample_augmentations(seed=0, epochs=np.full(size, next(epochs)), records=np.arange(size))
        np.matmul(basis, normals[:, :, None])

    def transfer() -> None:
        jax.block_until_ready(place_batch(mesh, Batch(*arrays)))

    def make_pipelines(prefix: str, source: Any, decoder: CropDecoder) -> dict[str, Program]:
        """Makes a batch on this thread, and the next of those that threads read ahead."""
        batches, steps = TrainingBatches(source, size, 0, basis, decode_crop=decoder), itertools.count(1)
        programs = {f'{prefix}batch': Program(lambda: batches[next(steps)])}
        for threads in sorted({1, os.cpu_count() or 1}):
            ahead = batches.read_from(0, threads=threads)
            programs[f'{prefix}pipeline_{threads}'] = make_iterator_program(ahead, skip=2 * READ_AHEAD)
        return programs

    return {
        'draw': Program(draw),
        'transfer': Program(transfer, moved=sum(array.nbytes for array in arrays)),
        **_make_record_stages(size, records),
        **make_pipelines('', records, get_crop_decoder(records)),
        **_make_photo_stages(size, photos),
        **make_pipelines('photo_', photos, decode_photo_crop),
        **make_pipelines('raw_', raw, get_crop_decoder(raw)),
        **make_pipelines('cached_', cached, get_crop_decoder(cached)),
        'memcpy': _make_copy(size, images.nbytes),
        'raw_grain': make_iterator_program(_iter_grain(raw, size), skip=2 * READ_AHEAD),
    }


def _make_copy(size: int, nbytes: int) -> Program:
    """Copies what a batch has, from memory that no cache holds to a batch that is there already."""
    source, target = np.ones((4 * size, nbytes // size), np.uint8), np.empty((size, nbytes // size), np.uint8)
    starts = itertools.cycle(range(0, 4 * size, size))

    def copy() -> None:
        start = next(starts)
        np.copyto(target, source[start : start + size])

    return Program(copy, moved=nbytes)


def _iter_grain(source: RawSource, size: int) -> Iterator[Any]:
    """Yields batches of raw records cropped and mirrored one by one, and stacked by Grain."""

    def crop(index: int, random: np.random.Generator) -> tuple[np.ndarray, np.int32]:
        image = np.empty((CROP, CROP, 3), np.uint8)
        source.read_crop(index, image, top=int(random.integers(OFFSET_COUNT)), left=int(random.integers(OFFSET_COUNT)))
        return (image[:, ::-1] if random.integers(2) else image), source.labels[index]

    indices = grain.MapDataset.range(len(source)).seed(0).shuffle().repeat()
    options = grain.ReadOptions(num_threads=os.cpu_count() or 1, prefetch_buffer_size=READ_AHEAD)
    return iter(indices.random_map(crop).batch(size).to_iter_dataset(options))


def _make_record_stages(size: int, records: DataSource) -> dict[str, Program]:
    """Makes the stages of prepared records; `moved` of 'read' is the bytes of a batch."""
    order = np.random.default_rng(0).permutation(len(records)).tolist()
    jpegs = [records[order[i % len(order)]][0] for i in range(size)]
    pixels, out = (np.empty((size, side, side, 3), np.uint8) for side in (RECORD, CROP))
    decoder, upcoming = get_crop_decoder(records), itertools.cycle(order)

    def decode() -> None:
        for jpeg, image in zip(jpegs, pixels, strict=True):
            decoder(jpeg, image)

    def crop() -> None:
        for i, (image, target) in enumerate(zip(pixels, out, strict=True)):
            top, left = i % OFFSET_COUNT, 7 * i % OFFSET_COUNT
            target[...] = image[top : top + CROP, left : left + CROP]

    decode()  # the pixels that `crop` reads
    return {
        'read': Program(lambda: [records[next(upcoming)] for _ in range(size)], moved=sum(map(len, jpegs))),
        'decode': Program(decode),
        'crop': Program(crop),
    }


def _make_photo_stages(size: int, photos: PhotoFolder) -> dict[str, Program]:
    """Makes the stages of photographs of any size; 'photo_prepare' is what making a dataset does with each."""
    jpegs = [photos[i % len(photos)][0] for i in range(size)]
    statistics = Statistics(1)

    def make_loop(function: Callable[[bytes], object]) -> Program:
        return Program(lambda: collections.deque(map(function, jpegs), maxlen=0))  # which keeps no image

    return {
        'photo_read': Program(lambda: [photos[i % len(photos)] for i in range(size)], moved=sum(map(len, jpegs))),
        'photo_decode': make_loop(lambda jpeg: simplejpeg.decode_jpeg(jpeg, min_height=2 * RECORD, min_factor=2)),
        'photo_square': make_loop(square_image),
        'photo_prepare': make_loop(lambda jpeg: statistics.add(simplejpeg.decode_jpeg(photo_to_jpeg(jpeg)), 0)),
    }
