"""Estimates the disk space and the time of a preparation, from a few of its images."""

import dataclasses
import itertools
import os
import pathlib
import shutil
import time
from statistics import mean, median
from typing import Any

from alexnet_jax.data.photo import UnusableImage
from alexnet_jax.data.preparing.dataset_spec import DatasetSpec
from alexnet_jax.data.preparing.workers import count_cores
from alexnet_jax.data.raw import RAW
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import InputError

SAMPLE = 64  # images that an estimate is made from
OVERHEAD = 1.02  # of a record file over its JPEGs
ONE_WRITER = 480e6  # bytes/s of raw records that the process which writes them has taken, hashed and written
FAST_DISK = 100e6  # bytes/s; what needs less is not limited by writing
STATISTICS_BYTES = 4_000_000  # the mean image and the running sums


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The disk space and time of a preparation."""

    images: dict[str, int]  # of each split
    needed: int  # bytes
    free: int  # bytes, on the disk of data_dir
    images_per_second: float  # over all cores, as measured on a sample on one core
    bytes_per_second: float  # that the disk must write to keep up
    notes: tuple[str, ...]  # the spec's

    @property
    def seconds(self) -> float:
        """Computes the time of converting every image."""
        return sum(self.images.values()) / self.images_per_second

    def to_json(self) -> dict[str, Any]:
        """Returns all of it, for programs."""
        return dataclasses.asdict(self) | {'seconds': self.seconds}

    def format_text(self) -> str:
        """Formats a few lines for people."""
        minutes = self.seconds / 60
        duration = f'{minutes / 60:.1f} hours' if minutes >= 100 else f'{max(minutes, 1):.0f} min'
        lines = [f'{split:12}{count:12,} images' for split, count in self.images.items()]
        lines.append(f'{"disk":12}{self.needed / 1e9:12.1f} GB needed, {self.free / 1e9:.1f} GB free')
        speed = f'{self.images_per_second:,.0f} images/s on {count_cores()} cores'
        if self.bytes_per_second > FAST_DISK:
            speed += f', if the disk writes {self.bytes_per_second / 1e6:,.0f} MB/s'
        return '\n'.join([*lines, f'{"time":12}about {duration} at {speed}'])


def estimate_preparation(
    spec: DatasetSpec, *, data_dir: str | os.PathLike[str], remaining: int | None = None
) -> Estimate:
    """Converts the first images of the training split and extrapolates to the `remaining` images (None: all).

    Raises:
      InputError: the disk has no space for it, or none of the first images can be used.
    """
    sizes, seconds = [], []
    statistics = Statistics(len(spec.classes), record_size=spec.record_size)
    for example in itertools.islice(spec.splits[spec.statistics_split].iter_examples(), SAMPLE):
        start = time.perf_counter()
        try:
            record = spec.to_record(example.source)
            if spec.with_statistics:
                statistics.add(spec.decode(record), example.label)
        except UnusableImage:
            continue
        seconds.append(time.perf_counter() - start)
        sizes.append(len(record))
    if not sizes:
        raise InputError(f'none of the first {SAMPLE} images of {spec.name} can be used')
    size = 0.0 if spec.originals is not None else mean(sizes) * (1 if spec.encoding == RAW else OVERHEAD)
    needed = round(size * (spec.example_count if remaining is None else remaining)) + STATISTICS_BYTES
    absolute = pathlib.Path(data_dir).absolute()
    free = shutil.disk_usage(next(path for path in (absolute, *absolute.parents) if path.is_dir())).free
    if free < needed:
        raise InputError(
            f'about {needed / 1e9:.1f} GB are needed in {data_dir} and {free / 1e9:.1f} GB are free; '
            'free some, or choose another --data_dir'
        )
    speed = count_cores() / median(seconds)  # the first images pay for what is loaded
    if spec.encoding == RAW:
        speed = min(speed, ONE_WRITER / size)
    return Estimate(
        images={split: len(examples) for split, examples in spec.splits.items()},
        needed=needed,
        free=free,
        images_per_second=speed,
        bytes_per_second=speed * size,
        notes=spec.notes,
    )
