"""Estimates the disk space and time of a preparation from a few images."""

from __future__ import annotations

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
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import InputError

SAMPLE = 64  # images
OVERHEAD = 1.02  # of a record file over its records
STATISTICS_BYTES = 4_000_000  # the mean image and the running sums


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The disk space and time of a preparation.

    Attributes:
      images: split -> examples.
      needed, free: bytes on the disk of data_dir.
      images_per_second: over all cores, as measured on a sample on one core.
      notes: the spec's.
    """

    images: dict[str, int]
    needed: int
    free: int
    images_per_second: float
    notes: tuple[str, ...]

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
        return '\n'.join(
            [
                *(f'{split:12}{count:12,} images' for split, count in self.images.items()),
                f'{"disk":12}{self.needed / 1e9:12.1f} GB needed, {self.free / 1e9:.1f} GB free',
                f'{"time":12}about {duration} at {self.images_per_second:,.0f} images/s on {count_cores()} cores',
            ]
        )


def estimate_preparation(
    spec: DatasetSpec, *, data_dir: str | os.PathLike[str], remaining: int | None = None
) -> Estimate:
    """Converts the first images of the training split and extrapolates to the `remaining` images (None: all).

    Raises:
      InputError: the disk has no space for it, or none of the first images can be used.
    """
    sizes, seconds = [], []
    statistics = Statistics(len(spec.classes), record_size=spec.record_size)
    for example in itertools.islice(spec.splits['train'].iter_examples(), SAMPLE):
        start = time.perf_counter()
        try:
            record = spec.to_record(example.source)
            statistics.add(spec.decode(record), example.label)
        except UnusableImage:
            continue
        seconds.append(time.perf_counter() - start)
        sizes.append(len(record))
    if not sizes:
        raise InputError(f'none of the first {SAMPLE} training images of {spec.name} can be used')
    size = mean(sizes) * OVERHEAD if spec.originals is None else 0
    needed = round(size * (spec.example_count if remaining is None else remaining)) + STATISTICS_BYTES
    absolute = pathlib.Path(data_dir).absolute()
    free = shutil.disk_usage(next(path for path in (absolute, *absolute.parents) if path.is_dir())).free
    if free < needed:
        raise InputError(
            f'about {needed / 1e9:.1f} GB are needed in {data_dir} and {free / 1e9:.1f} GB are free; '
            'free some, or choose another --data_dir'
        )
    return Estimate(
        images={split: len(examples) for split, examples in spec.splits.items()},
        needed=needed,
        free=free,
        images_per_second=count_cores() / median(seconds),  # the first images pay for what is loaded
        notes=spec.notes,
    )
