"""What preparing will take, learnt from a few images: disk space and time."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import shutil
import time
from statistics import median
from typing import Any

from alexnet_jax import InputError
from alexnet_jax.data.conversion import cores
from alexnet_jax.data.items import Plan, UnusableImage
from alexnet_jax.data.statistics import Statistics

SAMPLE = 64  # images
OVERHEAD = 1.02  # of a record file over its records
STATISTICS_BYTES = 4_000_000  # the mean image and the running sums


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What preparing a plan will take.

    Attributes:
      images: split -> items.
      needed, free: bytes on the disk of data_dir.
      images_per_second: over all cores, as measured on a sample on one core.
      notes: the plan's.
    """

    images: dict[str, int]
    needed: int
    free: int
    images_per_second: float
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Time of converting every image."""
        return sum(self.images.values()) / self.images_per_second

    def fields(self) -> dict[str, Any]:
        """All of it, for programs."""
        return dataclasses.asdict(self) | {'seconds': self.seconds}

    def remarks(self) -> tuple[str, ...]:
        """What a person should know besides."""
        return self.notes

    def text(self) -> str:
        """A few lines for people."""
        minutes = self.seconds / 60
        duration = f'{minutes / 60:.1f} hours' if minutes >= 100 else f'{max(minutes, 1):.0f} min'
        return '\n'.join(
            [
                *(f'{split:12}{count:12,} images' for split, count in self.images.items()),
                f'{"disk":12}{self.needed / 1e9:12.1f} GB needed, {self.free / 1e9:.1f} GB free',
                f'{"time":12}about {duration} at {self.images_per_second:,.0f} images/s on {cores()} cores',
            ]
        )


def check(plan: Plan, *, data_dir: str | os.PathLike[str], left: int | None = None) -> Estimate:
    """The `estimate` of a plan that the disk has space for; `InputError` if it has not."""
    found = estimate(plan, data_dir=data_dir, left=left)
    if found.free < found.needed:
        raise InputError(
            f'about {found.needed / 1e9:.1f} GB are needed in {data_dir} and {found.free / 1e9:.1f} GB are free; '
            'free some, or choose another --data_dir'
        )
    return found


def estimate(plan: Plan, *, data_dir: str | os.PathLike[str], left: int | None = None) -> Estimate:
    """Converts the first images of the training split and extrapolates, to the `left` images that are still to do."""
    sizes, seconds = [], []
    statistics = Statistics(len(plan.classes), record_size=plan.record_size)
    for item in itertools.islice(plan.splits['train'].items(), SAMPLE):
        start = time.perf_counter()
        try:
            record = plan.to_record(item.source)
            statistics.add(plan.decode(record), item.label)
        except UnusableImage:
            continue
        seconds.append(time.perf_counter() - start)
        sizes.append(len(record))
    if not sizes:
        raise InputError(f'none of the first {SAMPLE} training images of {plan.name} can be used')
    images = {split: len(items) for split, items in plan.splits.items()}
    size = sum(sizes) / len(sizes) * OVERHEAD if plan.originals is None else 0
    return Estimate(
        images=images,
        needed=round(size * (sum(images.values()) if left is None else left)) + STATISTICS_BYTES,
        free=shutil.disk_usage(_existing(pathlib.Path(data_dir))).free,
        images_per_second=cores() / median(seconds),  # the first images pay for what is loaded
        notes=plan.notes,
    )


def _existing(path: pathlib.Path) -> pathlib.Path:
    """The nearest folder above that is there: data_dir may not be yet."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path
