"""Writes the records of a dataset, shard by shard, so that a killed run goes on where it stopped.

A shard holds the images of a fixed range of examples and nothing else decides its bytes. When one is finished, it and
the sums over everything before it are on disk, and only then the journal names them; a rerun starts with the first
example that the journal does not name. The result is therefore the same bytes, however often a run was killed.
"""

import array
import dataclasses
import io
import itertools
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

from alexnet_jax.data import raw
from alexnet_jax.data.preparing.dataset_spec import DatasetSpec
from alexnet_jax.data.preparing.raw_shards import RawShardWriter
from alexnet_jax.data.preparing.workers import convert_examples
from alexnet_jax.data.raw import RAW
from alexnet_jax.data.record_names import get_names_path, write_record_names
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.files import hash_file, write_file

SHARD = 8192  # examples, some 400 MB of photographs: what a kill can cost at most, half a minute on a few cores

_DIGESTS, _LABELS = 'digests of ', 'labels of '  # begin their names in the file of sums
_NAMES = '.names'  # ends the name of a shard's own list of names

Progress = Callable[[str, int, int], None]  # split, images done, images in the split


@dataclasses.dataclass
class SplitState:
    """The converted part of a split."""

    seen: int = 0  # examples that were converted, or found unusable
    records: int = 0  # how many of them are usable
    # Of each finished shard: records, bytes of these, bytes of the file.
    shards: list[Sequence[int]] = dataclasses.field(default_factory=list)
    hashes: list[str] = dataclasses.field(default_factory=list)  # sha256 of the same
    unusable: list[Sequence[str]] = dataclasses.field(default_factory=list)  # (key, reason) of each
    complete: bool = False  # whether no example remains


def make_features(spec: DatasetSpec) -> Any:
    """Makes the TFDS features of a prepared dataset."""
    image = tfds.features.Image(shape=(spec.record_size, spec.record_size, 3), encoding_format='jpeg')
    return tfds.features.FeaturesDict({'image': image, 'label': tfds.features.ClassLabel(names=spec.classes)})


class _ShardWriter:
    """Writes a shard of JPEGs under another name until it is finished; no file where there is no record."""

    def __init__(self, path: pathlib.Path, spec: DatasetSpec) -> None:
        self._path, self._unfinished = path, path.with_suffix('.unfinished')
        self._features = make_features(spec)
        self._serializer = example_serializer.ExampleSerializer(self._features.get_serialized_info())
        self._writer: Any = None
        self._sizes: list[int] = []  # bytes of each record

    def write(self, jpeg: bytes, label: int) -> None:
        """Adds a record."""
        if self._writer is None:
            self._writer = ArrayRecordWriter(os.fspath(self._unfinished), 'group_size:1')  # random access to each
        encoded = self._features.encode_example({'image': io.BytesIO(jpeg), 'label': label})
        # Deterministic: otherwise image and label change places by chance.
        record = self._serializer.get_tf_example(encoded).SerializeToString(deterministic=True)
        self._writer.write(record)
        self._sizes.append(len(record))

    def close(self) -> tuple[int, int, int] | None:
        """Moves the file to its path; returns (records, their bytes, the file's), or None where there is no file."""
        if self._writer is None:
            return None
        self._writer.close()
        with self._unfinished.open('rb') as file:
            os.fsync(file.fileno())  # it would now survive a power cut
        self._unfinished.replace(self._path)
        return len(self._sizes), sum(self._sizes), self._path.stat().st_size


class Shards:
    """The shards of a dataset in a folder, with a journal of those that are finished."""

    def __init__(self, spec: DatasetSpec, folder: pathlib.Path) -> None:
        """Finds what an earlier run of the same recipe left in `folder`; empties it if it is of another."""
        self._spec, self._folder = spec, folder
        self.splits = {split: SplitState() for split in spec.splits}
        self.statistics = Statistics(len(spec.classes), record_size=spec.record_size)  # of the converted part of train
        self.digests = {split: array.array('Q') for split in spec.splits}  # of all that was seen: see `Converted`
        self.labels = {split: array.array('i') for split in spec.splits}  # of the records
        if not self._reload():
            shutil.rmtree(folder, ignore_errors=True)
            (folder / 'shards').mkdir(parents=True)
        # Examples in finished shards, which a rerun need not look at.
        self.finished = sum(state.seen for state in self.splits.values())

    def write(self, *, workers: int, progress: Progress | None) -> None:
        """Converts the remaining examples with so many processes; calls `progress` as images are done."""
        for split, state in self.splits.items():
            if not state.complete:
                self._write_split(split, state, workers=workers, progress=progress or (lambda *_: None))

    def _write_split(self, split: str, state: SplitState, *, workers: int, progress: Progress) -> None:
        examples, first = self._spec.splits[split], state.seen
        count = len(examples)
        if first:
            progress(split, first, count)
        shard, names = self._open_shard(split, state), list[str]()
        with_statistics = self._spec.with_statistics and split == self._spec.statistics_split
        options: Any = {'count': count - first, 'with_statistics': with_statistics, 'workers': workers}
        converted = convert_examples(self._spec, examples.iter_examples(first), **options)
        for chunk, (results, digests, statistics) in converted:
            for example, result in zip(chunk, results, strict=True):
                if isinstance(result, str):
                    state.unusable.append((example.key, result))
                    continue
                state.records += 1
                self.labels[split].append(example.label)
                names.append(example.key)
                if self._spec.originals is None:
                    shard.write(result, example.label)
            state.seen += len(chunk)
            self.digests[split].extend(digests)
            if statistics is not None:
                self.statistics.merge(statistics)
            progress(split, state.seen, count)
            if state.seen - first >= SHARD:
                self._finish(split, state, shard, names)
                shard, names, first = self._open_shard(split, state), [], state.seen
        state.complete = True
        self._finish(split, state, shard, names)

    def _open_shard(self, split: str, state: SplitState) -> _ShardWriter | RawShardWriter:
        path = self._get_path(split, len(state.shards))
        if self._spec.encoding == RAW:
            return RawShardWriter(path, record_size=self._spec.record_size)
        return _ShardWriter(path, self._spec)

    def _finish(
        self, split: str, state: SplitState, shard: _ShardWriter | RawShardWriter, names: Sequence[str]
    ) -> None:
        """Closes a shard, and writes the names of its images, the sums and the journal."""
        path = self._get_path(split, len(state.shards))
        if (sizes := shard.close()) is not None:
            state.shards.append(sizes)
            state.hashes.append(hash_file(path))  # now that the system has it in memory
            if self._spec.named:
                write_file(path.with_suffix(_NAMES), json.dumps(names), durable=True)
        self.finished = sum(state.seen for state in self.splits.values())
        # The sums first, under a name of their own: the journal is what makes both true at once.
        sums, content = self._folder / f'sums-{self.finished}.npz', io.BytesIO()
        arrays: Any = {f'{_DIGESTS}{split}': np.asarray(digests) for split, digests in self.digests.items()}
        arrays |= {f'{_LABELS}{split}': np.asarray(labels) for split, labels in self.labels.items()}
        np.savez(content, **vars(self.statistics), **arrays)
        write_file(sums, content.getvalue(), durable=True)
        splits = {split: dataclasses.asdict(state) for split, state in self.splits.items()}
        journal = {'recipe': self._spec.recipe, 'sums': sums.name, 'splits': splits}
        write_file(self._folder / 'journal.json', json.dumps(journal), durable=True)
        for old in set(self._folder.glob('sums-*.npz')) - {sums}:
            old.unlink()

    def _reload(self) -> bool:
        """Takes over the folder's content; False, and nothing is taken, if of another recipe or not whole."""
        try:
            journal = json.loads((self._folder / 'journal.json').read_bytes())
        except FileNotFoundError:
            return False
        if journal['recipe'] != self._spec.recipe:
            return False
        splits = {split: SplitState(**state) for split, state in journal['splits'].items()}
        for split, state in splits.items():
            if len(state.hashes) != len(state.shards):  # of a version that kept none
                return False
            for (_, _, size), (path, final) in zip(state.shards, self._get_paths(split, state), strict=True):
                found = final if final.exists() else path
                if not found.is_file() or found.stat().st_size != size:
                    return False
                if self._spec.named and not path.with_suffix(_NAMES).is_file():  # of a version that kept none
                    return False
        with np.load(self._folder / journal['sums']) as sums:
            arrays = dict(sums)
        if any(f'{kind}{split}' not in arrays for kind in (_DIGESTS, _LABELS) for split in splits):
            return False  # of a version that kept none
        self.splits = splits
        self.digests = {split: array.array('Q', arrays.pop(f'{_DIGESTS}{split}')) for split in splits}
        self.labels = {split: array.array('i', arrays.pop(f'{_LABELS}{split}')) for split in splits}
        vars(self.statistics).update(arrays)
        return True

    def _get_path(self, split: str, index: int) -> pathlib.Path:
        return self._folder / 'shards' / f'{split}-{index:05d}'

    def _get_paths(self, split: str, state: SplitState) -> list[tuple[pathlib.Path, pathlib.Path]]:
        """Returns each finished shard's path while the dataset is being written, and its final path."""
        count, data = len(state.shards), self._folder / 'data'
        if self._spec.encoding == RAW:
            names = [raw.get_shard_name(split, i, count) for i in range(count)]
        else:
            names = [f'{self._spec.name}-{split}.array_record-{i:05d}-of-{count:05d}' for i in range(count)]
        return [(self._get_path(split, i), data / name) for i, name in enumerate(names)]

    def get_hashes(self) -> dict[str, str]:
        """Returns the sha256 of each shard by its final name."""
        pairs = [zip(self._get_paths(split, state), state.hashes, strict=True) for split, state in self.splits.items()]
        return {final.name: sha256 for (_, final), sha256 in itertools.chain(*pairs)}

    def list_duplicates(self) -> list[str]:
        """Lists sentences on how many images of one split are in another too, each with an example."""
        notes = []
        for first, second in itertools.combinations(self.splits, 2):
            there, here = (np.asarray(self.digests[split]) for split in (first, second))
            shared = np.flatnonzero(np.isin(here, there) & (here != 0))
            if shared.size:
                places = {second: shared[0], first: np.flatnonzero(there == here[shared[0]])[0]}
                found = [(split, next(self._spec.splits[split].iter_examples(int(i)))) for split, i in places.items()]
                names = ' is '.join(self._spec.show_key(split, example.key) for split, example in found)
                count = f'{shared.size:,} of {self.splits[second].records:,} {second} images are in {first} too'
                notes.append(f'{count} ({names}): their errors say nothing of new images')
        return notes

    def assemble(self) -> pathlib.Path:
        """Gives the shards, if there are any, their final names and adds what describes them; returns their folder."""
        data = self._folder / 'data'
        data.mkdir(exist_ok=True)
        if self._spec.originals is not None:
            return data
        for split, state in self.splits.items():
            names: list[str] = []
            for path, final in self._get_paths(split, state):
                if not final.exists():  # as it may after a kill
                    path.replace(final)
                if self._spec.named:
                    names += json.loads(path.with_suffix(_NAMES).read_bytes())
            if self._spec.named:
                write_record_names(get_names_path(data, split), names)
        if self._spec.encoding == RAW:
            raw.write_classes(data, self._spec.classes)
            for split, labels in self.labels.items():
                raw.write_labels(data / raw.get_labels_name(split), np.asarray(labels))
        else:
            self._describe_to_tfds(data)
        return data

    def _describe_to_tfds(self, data: pathlib.Path) -> None:
        infos = []
        for split, state in self.splits.items():
            lengths, sizes, _ = zip(*state.shards, strict=True)
            template = tfds.core.ShardedFileTemplate(
                data_dir=data, dataset_name=self._spec.name, split=split, filetype_suffix='array_record'
            )
            infos.append(tfds.core.SplitInfo(split, list(lengths), sum(sizes), template))
        tfds.folder_dataset.write_metadata(
            data_dir=data,
            features=make_features(self._spec),
            split_infos=infos,
            version=None,
            check_data=False,
            supervised_keys=('image', 'label'),
        )
