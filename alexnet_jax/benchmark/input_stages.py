"""The input pipeline as it is benchmarked: each stage alone on one thread, and the whole with one thread and more."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import simplejpeg
from PIL import Image

from alexnet_jax import InputError
from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.sampling import Program
from alexnet_jax.data.augment import CROP, OFFSETS, draw, lighting_basis
from alexnet_jax.data.decode import copy_window
from alexnet_jax.data.photo import photo_to_jpeg, photo_window, square_image
from alexnet_jax.data.pipeline import READ_AHEAD, HostBatch, TrainingBatches, window_of
from alexnet_jax.data.source import Records, open_dataset
from alexnet_jax.data.statistics import RECORD, Statistics
from alexnet_jax.parallel.mesh import make_mesh, place_batch
from alexnet_jax.training.step import Batch

PHOTOS, PHOTO_SIZE = 64, (500, 375)  # of `write_photos`: as many as matter, and ImageNet's usual size
THREADS = tuple(sorted({1, os.cpu_count() or 1}))


class Files:
    """Photographs in a folder, by index: encoded bytes and label 0, as `Records` gives them."""

    def __init__(self, folder: str) -> None:
        self.paths = sorted(p for p in pathlib.Path(folder).rglob('*') if p.suffix.lower() in ('.jpg', '.jpeg'))
        if not self.paths:
            raise InputError(f'--images={folder}: no .jpg or .jpeg in it; give a folder that holds some')

    def __len__(self) -> int:
        """How many."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Reads one."""
        return self.paths[index].read_bytes(), 0


def write_photos(folder: pathlib.Path) -> None:
    """PHOTOS JPEGs, 4:2:0, with detail of every size and about 100 kB each, as ImageNet's."""
    width, height = PHOTO_SIZE
    for number in range(PHOTOS):
        random = np.random.default_rng(number)
        picture = np.full((height, width, 3), 128.0, np.float32)
        for octave in range(8):
            coarse = random.uniform(0, 255, (3 << octave, 4 << octave, 3)).astype(np.uint8)
            fine = Image.fromarray(coarse).resize(PHOTO_SIZE, Image.Resampling.BICUBIC)
            picture += (np.asarray(fine, np.float32) - 128) * 0.85**octave / 2
        pixels = picture.clip(0, 255).astype(np.uint8)
        (folder / f'{number:03}.jpg').write_bytes(simplejpeg.encode_jpeg(pixels, 92, 'RGB', '420'))


def programs(setting: Setting) -> dict[str, Program]:
    """Every call handles `setting.batch` images; names are as in `input_figures.STAGES`."""
    dataset = open_dataset(setting.dataset, data_dir=setting.data_dir)
    basis = lighting_basis(dataset.rgb_covariance, scale='standard_deviation', strength=0.1)
    batches = functools.partial(TrainingBatches, batch_size=setting.batch, seed=0, lighting_basis=basis)
    records, photos = dataset.records('train'), Files(setting.photos)
    any_source: Any = photos
    return {
        **_common_stages(setting.batch, basis),
        **_record_stages(setting.batch, records),
        **_whole('', batches(records, window=window_of(records))),
        **_photo_stages(setting.batch, photos),
        **_whole('photo_', batches(any_source, window=photo_window)),
    }


def _common_stages(size: int, basis: np.ndarray) -> dict[str, Program]:
    """What does not depend on where the images come from."""
    step = 0
    images = np.random.default_rng(0).integers(256, size=(size, CROP, CROP, 3), dtype=np.uint8)
    arrays = (images, np.zeros(size, np.int32), np.zeros((size, 3), np.float32))
    mesh = make_mesh(1, 1)

    def drawn() -> None:
        nonlocal step
        step += 1
        for record in range(size):
            basis @ draw(seed=0, epoch=step, record=record).normals

    def transfer() -> None:
        jax.block_until_ready(place_batch(mesh, Batch(*arrays)))  # type: ignore[arg-type]

    moved = sum(array.nbytes for array in arrays)
    return {'draw': Program(drawn), 'transfer': Program(transfer, moved=moved)}


def _record_stages(size: int, records: Records) -> dict[str, Program]:
    """The stages of prepared records; `moved` of 'read' is the bytes of a batch."""
    order = np.random.default_rng(0).permutation(len(records))
    chosen = np.resize(order, size)
    jpegs = [records[int(i)][0] for i in chosen]
    pixels, window = np.empty((size, RECORD, RECORD, 3), np.uint8), window_of(records)
    for jpeg, image in zip(jpegs, pixels, strict=True):
        window(jpeg, image)
    out = np.empty((size, CROP, CROP, 3), np.uint8)
    place = 0

    def read() -> None:
        nonlocal place
        for _ in range(size):
            records[int(order[place % len(order)])]
            place += 1

    def decode() -> None:
        for jpeg, image in zip(jpegs, pixels, strict=True):
            window(jpeg, image)

    def crop() -> None:
        for i, (image, target) in enumerate(zip(pixels, out, strict=True)):
            top, left = i % OFFSETS, 7 * i % OFFSETS
            copy_window(image[top : top + CROP, left : left + CROP], target, mirrored=i % 2 == 1)

    return {'read': Program(read, moved=sum(map(len, jpegs))), 'decode': Program(decode), 'crop': Program(crop)}


def _photo_stages(size: int, photos: Files) -> dict[str, Program]:
    """The stages of photographs of any size; 'photo_prepare' is what making a dataset does with each."""
    files = [photos[i % len(photos)][0] for i in range(size)]
    statistics = Statistics(1)

    def each(work: Callable[[bytes], object]) -> Callable[[], None]:
        def call() -> None:
            for file in files:
                work(file)

        return call

    def prepare(file: bytes) -> None:
        statistics.add(simplejpeg.decode_jpeg(photo_to_jpeg(file)), 0)

    return {
        'photo_read': Program(lambda: [photos[i % len(photos)] for i in range(size)], moved=sum(map(len, files))),
        'photo_decode': Program(each(lambda f: simplejpeg.decode_jpeg(f, min_height=2 * RECORD, min_factor=2))),
        'photo_square': Program(each(square_image)),
        'photo_prepare': Program(each(prepare)),
    }


def _whole(prefix: str, batches: TrainingBatches) -> dict[str, Program]:
    """A batch on this thread, and the next of those that threads read ahead."""
    step = 0

    def batch() -> None:
        nonlocal step
        step += 1
        batches[step]

    whole = {f'{prefix}batch': Program(batch)}
    for threads in THREADS:
        iterator = batches.read_from(0, threads=threads)
        # What was read ahead before the clock starts must be gone by then.
        settle = functools.partial(_take, iterator, 2 * READ_AHEAD)
        whole[f'{prefix}pipeline_{threads}'] = Program(functools.partial(next, iterator), settle=settle)
    return whole


def _take(iterator: Iterator[HostBatch], count: int) -> None:
    for _ in range(count):
        next(iterator)
