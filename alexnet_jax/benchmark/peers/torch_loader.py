"""The input pipeline in PyTorch: a DataLoader whose processes decode by Pillow, in the steps of torchvision's classes.

Those are written out here: each wheel of torchvision goes with one PyTorch alone.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from alexnet_jax.benchmark.photos import PhotoFolder
from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.raw_records import FirstRecords
from alexnet_jax.benchmark.sampling import Program, make_iterator_program
from alexnet_jax.data.dataset import DataSource, open_dataset

CROP, RECORD = 224, 256
AHEAD = 2  # batches of each process that are made before they are asked for: DataLoader's default


def make_loader_programs(setting: Setting) -> tuple[dict[str, Program], dict[str, str]]:
    """Makes '[photo_]pipeline' with a process a core, and {library: version}."""
    records = open_dataset(setting.dataset, data_dir=setting.data_dir).records('train')
    assert isinstance(records, DataSource)  # encoded, as `input_figures.measure_input_pipeline` has looked
    paths, labels = write_files(FirstRecords(records), pathlib.Path(setting.scratch) / 'records')
    photos, processes = PhotoFolder(setting.photos).paths, os.cpu_count() or 1
    iterators = {
        'pipeline': iter_batches(JpegFiles(paths, labels), batch=setting.batch, processes=processes),
        'photo_pipeline': iter_batches(
            JpegFiles(photos, [0] * len(photos), square=RECORD), batch=setting.batch, processes=processes
        ),
    }
    programs = {name: make_iterator_program(made, skip=AHEAD * processes) for name, made in iterators.items()}
    return programs, {'torch': torch.__version__}


def write_files(records: Any, folder: pathlib.Path) -> tuple[list[pathlib.Path], list[int]]:
    """Writes (JPEG bytes, label) by index as files of a new folder, one each as ImageFolder reads them.

    Their names do not end as photographs' do, which may be in the same folder.
    """
    folder.mkdir()
    paths, labels = [], []
    for index in range(len(records)):
        jpeg, label = records[index]
        paths.append(folder / f'{index:06}.record')
        paths[-1].write_bytes(jpeg)
        labels.append(label)
    return paths, labels


class JpegFiles(torch.utils.data.Dataset):
    """Decodes files: uint8 (3, 224, 224), a crop drawn anew each time and half of the time mirrored, and its label."""

    def __init__(self, paths: Sequence[pathlib.Path], labels: Sequence[int], *, square: int | None = None) -> None:
        """Takes the files; `square` is the side to which the centre is resized before it is cropped, None: not."""
        self._paths, self._labels, self._square = list(map(str, paths)), labels, square

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with open(self._paths[index], 'rb') as file:
            image = Image.open(file).convert('RGB')
        if self._square is not None:
            side = min(image.size)
            left, top = ((length - side) / 2 for length in image.size)
            box = (left, top, left + side, top + side)
            image = image.resize((self._square, self._square), Image.Resampling.BICUBIC, box=box)
        left, top = (int(torch.randint(length - CROP + 1, (1,))) for length in image.size)
        image = image.crop((left, top, left + CROP, top + CROP))
        if torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.as_tensor(np.array(image)).permute(2, 0, 1), self._labels[index]


def iter_batches(files: JpegFiles, *, batch: int, processes: int) -> Iterator[Any]:
    """Yields batches (uint8 images, int64 labels) without end, made by so many processes."""
    # With replacement, so that no epoch ends: the processes would wait for the next one's first batches.
    order = torch.utils.data.RandomSampler(files, replacement=True, num_samples=2**40)
    return iter(torch.utils.data.DataLoader(files, batch, sampler=order, num_workers=processes, prefetch_factor=AHEAD))
