"""Writes the records of a plan, shard by shard, so that a run that was killed goes on where it stopped.

A shard holds the images of a fixed range of items and nothing else decides its bytes. When one is finished, it and the
sums over everything before it are on disk, and only then the journal says so; a rerun starts with the first item that
the journal does not name. The result is therefore the same bytes, however often a run was killed and wherever.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core import example_serializer

from alexnet_jax.data.conversion import convert
from alexnet_jax.data.items import Plan
from alexnet_jax.data.statistics import Statistics

SHARD = 8192  # items, some 400 MB of photographs: what a kill can cost at most, half a minute on a few cores

Progress = Callable[[str, int, int], None]  # split, images done, images in the split


@dataclasses.dataclass
class SplitState:
    """What is finished of a split.

    Attributes:
      seen: items that need not be looked at again.
      records: how many of them are usable.
      shards: (records, bytes of these, bytes of the file) of each shard.
      unusable: (key, reason) of the items that are not.
      complete: whether no item is left.
    """

    seen: int = 0
    records: int = 0
    shards: list[Sequence[int]] = dataclasses.field(default_factory=list)
    unusable: list[Sequence[str]] = dataclasses.field(default_factory=list)
    complete: bool = False


class Shards:
    """The finished part of a plan in a folder.

    Attributes:
      splits: split name -> `SplitState`.
      statistics: sums over the finished part of 'train'.
    """

    def __init__(self, plan: Plan, folder: pathlib.Path) -> None:
        """Finds what an earlier run of the same recipe left in `folder`; empties it if it is of another."""
        self._plan = plan
        self._folder = folder
        self.splits = {split: SplitState() for split in plan.splits}
        self.statistics = Statistics(len(plan.classes), record_size=plan.record_size)
        if not self._reload():
            shutil.rmtree(folder, ignore_errors=True)
            (folder / 'shards').mkdir(parents=True)

    @property
    def seen(self) -> int:
        """Items that need not be looked at again."""
        return sum(state.seen for state in self.splits.values())

    def write(self, *, workers: int, progress: Progress | None) -> None:
        """Converts what is left of the plan."""
        for split in self._plan.splits:
            if not self.splits[split].complete:
                self._write_split(split, workers=workers, progress=progress)

    def _write_split(self, split: str, *, workers: int, progress: Progress | None) -> None:
        state, items, count = self.splits[split], self._plan.splits[split], len(self._plan.splits[split])
        if progress is not None and state.seen:
            progress(split, state.seen, count)
        shard = _Shard(self._path(split, len(state.shards)), self._plan)
        left = items.items(state.seen)
        for chunk, (results, statistics) in convert(
            self._plan, left, count=count - state.seen, summed=split == 'train', workers=workers
        ):
            for item, result in zip(chunk, results, strict=True):
                shard.add(item.key, item.label, result)
            if statistics is not None:
                self.statistics.merge(statistics)
            if progress is not None:
                progress(split, state.seen + shard.seen, count)
            if shard.seen >= SHARD:
                self._finish(state, shard)
                shard = _Shard(self._path(split, len(state.shards)), self._plan)
        state.complete = True
        self._finish(state, shard)

    def _finish(self, state: SplitState, shard: _Shard) -> None:
        if (sizes := shard.close()) is not None:
            state.shards.append(sizes)
        state.seen += shard.seen
        state.records += shard.records
        state.unusable += shard.unusable
        # The sums first, under a name of their own: the journal is what makes both true at once.
        sums = io.BytesIO()
        np.savez(sums, **vars(self.statistics))
        _replace(self._folder / f'sums-{self.seen}.npz', sums.getvalue())
        journal = {
            'recipe': self._plan.recipe,
            'sums': f'sums-{self.seen}.npz',
            'splits': {split: dataclasses.asdict(state) for split, state in self.splits.items()},
        }
        _replace(self._folder / 'journal.json', json.dumps(journal).encode())
        for old in set(self._folder.glob('sums-*.npz')) - {self._folder / f'sums-{self.seen}.npz'}:
            old.unlink()

    def _reload(self) -> bool:
        """Takes over what is there; False, and nothing is taken, if it is not this recipe's or not whole."""
        try:
            journal = json.loads((self._folder / 'journal.json').read_bytes())
        except FileNotFoundError:
            return False
        if journal['recipe'] != self._plan.recipe:
            return False
        splits = {split: SplitState(**state) for split, state in journal['splits'].items()}
        for split, state in splits.items():
            for index, path in enumerate(self._finished(split, len(state.shards))):
                if not path.is_file() or path.stat().st_size != state.shards[index][2]:
                    return False
        self.splits = splits
        with np.load(self._folder / journal['sums']) as sums:
            for name in sums.files:
                setattr(self.statistics, name, sums[name])
        return True

    def _path(self, split: str, index: int) -> pathlib.Path:
        return self._folder / 'shards' / f'{split}-{index:05d}'

    def _finished(self, split: str, count: int) -> list[pathlib.Path]:
        """Where the finished shards are: each under its final name, once it has been moved there."""
        stem = f'{self._plan.name}-{split}.array_record'
        final = [self._folder / 'data' / f'{stem}-{index:05d}-of-{count:05d}' for index in range(count)]
        return [path if path.exists() else self._path(split, index) for index, path in enumerate(final)]

    def assemble(self) -> pathlib.Path:
        """Gives the shards their final names and describes them to TFDS, if there are any; returns their folder."""
        data = self._folder / 'data'
        data.mkdir(exist_ok=True)
        if self._plan.originals is not None:
            return data
        infos = []
        for split, state in self.splits.items():
            count = len(state.shards)
            for index, path in enumerate(self._finished(split, count)):
                path.replace(data / f'{self._plan.name}-{split}.array_record-{index:05d}-of-{count:05d}')
            lengths, sizes, _ = zip(*state.shards, strict=True)
            template = tfds.core.ShardedFileTemplate(
                data_dir=data, dataset_name=self._plan.name, split=split, filetype_suffix='array_record'
            )
            infos.append(tfds.core.SplitInfo(split, list(lengths), sum(sizes), template))
        tfds.folder_dataset.write_metadata(
            data_dir=data,
            features=features_of(self._plan),
            split_infos=infos,
            version=None,
            check_data=False,
            supervised_keys=('image', 'label'),
        )
        return data


def features_of(plan: Plan) -> Any:
    """The TFDS features of a prepared dataset."""
    shape = (plan.record_size, plan.record_size, 3)
    return tfds.features.FeaturesDict(
        {
            'image': tfds.features.Image(shape=shape, encoding_format='jpeg'),
            'label': tfds.features.ClassLabel(names=plan.classes),
        }
    )


class _Shard:
    """A shard that is being written, under another name until it is finished."""

    def __init__(self, path: pathlib.Path, plan: Plan) -> None:
        self._path = path
        self._unfinished = path.with_suffix('.unfinished')
        self._plan = plan
        self._features = features_of(plan)
        self._serializer = example_serializer.ExampleSerializer(self._features.get_serialized_info())
        self._writer: Any = None
        self._bytes = 0
        self.seen = self.records = 0
        self.unusable: list[tuple[str, str]] = []

    def add(self, key: str, label: int, result: bytes | str) -> None:
        """Adds a record, or the reason why there is none."""
        self.seen += 1
        if isinstance(result, str):
            self.unusable.append((key, result))
            return
        self.records += 1
        if self._plan.originals is not None:  # counted, not kept
            return
        if self._writer is None:
            self._writer = ArrayRecordWriter(os.fspath(self._unfinished), 'group_size:1')  # random access to each
        example = self._serializer.get_tf_example(
            self._features.encode_example({'image': io.BytesIO(result), 'label': label})
        )
        record = example.SerializeToString(deterministic=True)  # otherwise image and label change places by chance
        self._writer.write(record)
        self._bytes += len(record)

    def close(self) -> tuple[int, int, int] | None:
        """Puts the file in its place; (records, their bytes, the file's), or None where nothing was to be kept."""
        if self._writer is None:
            return None
        self._writer.close()
        _to_disk(self._unfinished)
        self._unfinished.replace(self._path)
        return self.records, self._bytes, self._path.stat().st_size


def _replace(path: pathlib.Path, content: bytes) -> None:
    """Writes a file that is whole whenever it is there."""
    unfinished = path.with_name(path.name + '.unfinished')
    unfinished.write_bytes(content)
    _to_disk(unfinished)
    unfinished.replace(path)


def _to_disk(path: pathlib.Path) -> None:
    """Returns when the file would survive a power cut."""
    with path.open('rb') as file:
        os.fsync(file.fileno())
