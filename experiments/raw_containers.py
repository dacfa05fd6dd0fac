"""What raw records should be kept in: crops of uncompressed records by random access, out of each container in turn.

    python -m experiments.raw_containers FOLDER [RECORDS]

Writes RECORDS (3,072) records of 256x256x3 to FOLDER for each container, 0.6 GB each, and reads batches of 128 crops of
224x224 into an array made beforehand. From the page cache: time of the whole process (CPU) an image on one thread, and
images/s by the clock on one and two; from the disk, of which the system has nothing in memory, images/s on two; medians
of interleaved rounds. Opening is of 1,281,167 records until the first is read; they are of 16 bytes but where the files
may have holes. Needs `pip install lmdb pyarrow`; docs/data.md holds the result.
"""

from __future__ import annotations

import concurrent.futures
import functools
import gc
import os
import pathlib
import re
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from experiments.raw_readers import CONTAINERS, CROP, OPENING, SHARD, SIDE, Read

BATCH = 128
ROUNDS, DISK_ROUNDS, BATCHES = 9, 5, 6  # batches of each thread in a round


def main(folder: str, records: str = '3072') -> None:
    """Measures and prints the table."""
    root, count = pathlib.Path(folder), int(records)
    root.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, SIDE, SIDE, 3), np.uint8)
    starts = range(0, count, SHARD)
    blocks = [pixels[np.arange(start, min(start + SHARD, count)) % len(pixels)] for start in starts]
    openers: dict[str, Callable[[], Read]] = {}
    for name, make in CONTAINERS.items():
        where = root / re.sub('[^a-z0-9]+', '_', name.lower())
        try:
            make(where, blocks)
            openers[name] = functools.partial(make, where, blocks)
        except ImportError as error:
            print(f'    {name}: {error}')
    gc.collect()  # closes the files
    check(openers, pixels)
    figures = measure(openers, count)
    for name, found in measure_disk(openers, root, count).items():
        figures[name].append(found)
    print(f'    {"":28}{"CPU, us":>10}{"1 thread":>10}{"2 threads":>10}{"from disk":>10}{"opening":>15}')
    for name in openers:
        cells = [f'{value:10,.0f}' for value in figures[name]]
        opening = statistics.median(OPENING[name](root / 'opening') for _ in range(5))
        print(f'    {name:28}{"".join(cells)}{1000 * opening:12.2f} ms', flush=True)


def check(openers: dict[str, Callable[[], Read]], pixels: np.ndarray) -> None:
    """All read the same."""
    out = np.empty((2, CROP, CROP, 3), np.uint8)
    for opener in openers.values():
        opener()(np.array([70, 1030]), np.array([[3, 5], [32, 0]]), out)
        assert np.array_equal(out[0], pixels[6, 3 : 3 + CROP, 5 : 5 + CROP])
        assert np.array_equal(out[1], pixels[6, 32 : 32 + CROP, :CROP])


def measure(openers: dict[str, Callable[[], Read]], count: int) -> dict[str, list[float]]:
    """{name: [us of CPU an image on one thread, images/s on one thread, on two]}."""
    readers = {name: opener() for name, opener in openers.items()}
    taken: dict[tuple[str, int], list[tuple[float, float]]] = {(name, n): [] for name in readers for n in (1, 2)}
    for turn in range(ROUNDS):
        for place, ((name, n), found) in enumerate(taken.items()):
            found.append(time_threads(readers[name], count, threads=n, seed=(turn, place), batches=BATCHES))
    middle = {key: np.median(found, axis=0) for key, found in taken.items()}
    return {name: [1e6 * middle[name, 1][0], 1 / middle[name, 1][1], 1 / middle[name, 2][1]] for name in readers}


def measure_disk(openers: dict[str, Callable[[], Read]], root: pathlib.Path, count: int) -> dict[str, float]:
    """{name: images/s on two threads}, each time of files that were not read since they were opened."""
    taken: dict[str, list[float]] = {name: [] for name in openers}
    for turn in range(DISK_ROUNDS):
        for place, (name, opener) in enumerate(openers.items()):
            gc.collect()  # unmaps what was read last: mapped pages stay in memory
            for path in root.rglob('*'):
                if path.is_file():
                    with path.open('rb') as file:
                        os.fsync(file.fileno())
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            taken[name].append(time_threads(opener(), count, threads=2, seed=(turn, place), batches=1)[1])
    return {name: 1 / statistics.median(found) for name, found in taken.items()}


def time_threads(read: Read, count: int, *, threads: int, seed: tuple[int, int], batches: int) -> tuple[float, float]:
    """Seconds an image: of the process, and by the clock. No two seeds read the same records."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        cpu, wall = time.process_time(), time.perf_counter()
        list(pool.map(lambda i: read_batches(read, count, (*seed, i), batches), range(threads)))
        images = threads * batches * BATCH
        return (time.process_time() - cpu) / images, (time.perf_counter() - wall) / images


def read_batches(read: Read, count: int, seed: tuple[int, ...], batches: int) -> None:
    """Reads batches at random."""
    random, out = np.random.default_rng(seed), np.empty((BATCH, CROP, CROP, 3), np.uint8)
    for _ in range(batches):
        read(random.integers(count, size=BATCH), random.integers(SIDE - CROP + 1, size=(BATCH, 2)), out)


if __name__ == '__main__':
    main(*sys.argv[1:])
