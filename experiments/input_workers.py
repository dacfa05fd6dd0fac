"""Who should decode: threads that each make a batch, threads that share one, or processes; and what memory it takes.

    python -m experiments.input_workers DATASET [DATA_DIR] [IMAGES]

Speeds to uint8 batches on the host, medians of interleaved rounds; then the resident set while the project's own form
reads IMAGES images (20,000) and moves them to the device. Of raw records, which nobody decodes, the project's own form
alone. docs/data.md holds the result.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from alexnet_jax.sharding.backend import tune_allocator

tune_allocator()  # as `main` does, before jax is imported

import grain  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

from alexnet_jax.data.augment import sample_augmentation  # noqa: E402
from alexnet_jax.data.dataset import DataSource, open_dataset  # noqa: E402
from alexnet_jax.data.pipeline import HostBatch, TrainingBatches, epoch_order  # noqa: E402
from alexnet_jax.run.batches import make_batch  # noqa: E402
from alexnet_jax.sharding.mesh import make_mesh, place_batch  # noqa: E402

BATCH, ROUNDS, BATCHES = 128, 5, 24
CORES = len(os.sched_getaffinity(0))


def main(dataset: str, data_dir: str = 'data', images: str = '20000') -> None:
    """Measures and prints."""
    flags.FLAGS.mark_as_parsed()  # Grain's processes take their options from there
    records = open_dataset(dataset, data_dir=data_dir).records('train')
    batches = TrainingBatches(records, BATCH, 0, np.eye(3, dtype=np.float32))
    forms: dict[str, Callable[[], Iterator[Any]]] = {
        f'{n} threads, a batch each': lambda n=n: batches.read_from(0, threads=n) for n in (1, 2, 4)
    }
    if isinstance(records, DataSource):
        forms |= {f'{n} threads, a batch shared': lambda n=n: shared(batches, n) for n in (2, 4)}
        forms |= {f'{n} processes': lambda n=n: processes(batches, n) for n in (1, 2)}
    iterators = {name: start() for name, start in forms.items()}
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(ROUNDS):
        for name, iterator in iterators.items():
            for _ in range(BATCHES // 2):
                next(iterator)  # what was read ahead is gone
            began = time.perf_counter()
            for _ in range(BATCHES):
                next(iterator)
            seconds[name].append((time.perf_counter() - began) / (BATCHES * BATCH))
    first = next(iter(forms))
    print(f'{len(records):,} records, batches of {BATCH}, {CORES} cores')
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[first], times, strict=True))
        print(f'    {name:28}{1 / statistics.median(times):8,.0f} images/s {ratio:6.2f}x')
    del iterators
    memory(batches, int(images))


def memory(batches: TrainingBatches, images: int) -> None:
    """Prints the resident set ten times on the way through `images`."""
    mesh, every = make_mesh(1, 1), max(1, images // BATCH // 10)
    print('images read and moved to the device: resident set, MB')
    for number, batch in enumerate(batches.read_from(0), 1):
        jax.block_until_ready(place_batch(mesh, make_batch(batch)))
        if number % every == 0:
            pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
            print(f'    {number * BATCH:8,} {pages * os.sysconf("SC_PAGE_SIZE") / 1e6:8.0f}', flush=True)
        if number * BATCH >= images:
            return


def shared(batches: TrainingBatches, threads: int) -> Iterator[HostBatch]:
    """The rows of each batch spread over threads, one batch ahead."""

    def row(step: int, place: int, images: np.ndarray, labels: np.ndarray) -> None:
        epoch, at = divmod(step * BATCH + place, len(batches.source))
        record = int(epoch_order(len(batches.source), seed=batches.seed, epoch=epoch)[at])
        jpeg, labels[place] = batches.source[record]
        chance = sample_augmentation(seed=batches.seed, epoch=epoch, record=record)
        batches.decode_crop(jpeg, images[place], top=chance.top, left=chance.left)

    def start(step: int) -> tuple[HostBatch, list[Any]]:
        images, labels = np.empty((BATCH, 224, 224, 3), np.uint8), np.empty(BATCH, np.int32)
        work = [pool.submit(row, step, place, images, labels) for place in range(BATCH)]
        return HostBatch(
            images, labels, np.empty((BATCH, 3), np.float32), np.empty(BATCH, np.int64), np.empty((BATCH, 3), np.int32)
        ), work

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        step, ahead = 0, start(0)
        while True:
            batch, work = ahead
            step, ahead = step + 1, start(step + 1)
            concurrent.futures.wait(work)
            yield batch


def processes(batches: TrainingBatches, count: int) -> Iterator[dict[str, np.ndarray]]:
    """Grain's worker processes, which hand over batches in shared memory."""
    options = grain.MultiprocessingOptions(num_workers=count, per_worker_buffer_size=2)
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return iter(grain.MapDataset.source(batches).map(dataclasses.asdict).to_iter_dataset(ahead).mp_prefetch(options))


if __name__ == '__main__':
    main(*sys.argv[1:])
