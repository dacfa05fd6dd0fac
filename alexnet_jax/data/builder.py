"""The TFDS builder behind every prepared dataset: sources in, 256 x 256 JPEG records and statistics out."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import io
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import simplejpeg
import tensorflow_datasets as tfds

from alexnet_jax.data.statistics import IMAGE_SHAPE, Statistics

VERSION = '1.0.0'
CHUNK = 64  # images a worker takes at once: large against the 2 MB of sums that it sends back

Progress = Callable[[str, int, int], None]  # split, images done, images in the split


_Converted = tuple[list[bytes | str], Statistics | None]  # per item its JPEG or the reason; sums if training


class UnusableImage(Exception):
    """A source cannot become a training image; the message is the reason."""


class EmptySplit(Exception):
    """Every image of a split is unusable; the message is the split."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One image to be prepared: a key unique within its split, its class index, and what `to_jpeg` reads."""

    key: str
    label: int
    source: Any


class ImageBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes {'image': 256 x 256 RGB JPEG, 'label'} as ArrayRecord, over all cores.

    TFDS orders the records by a hash of their keys, so the shards are the same bytes for any number of
    workers, and are shuffled once on disk.

    Attributes:
      statistics: `Statistics` of the training split, complete after `download_and_prepare()`.
      unusable: (key, reason) of every source that was left out, prefixed by its split.
      counts: split -> images written.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        *,
        name: str,
        classes: Sequence[str],
        splits: Mapping[str, Sequence[Item]],
        to_jpeg: Callable[[Any], bytes],
        workers: int | None = None,
        progress: Progress | None = None,
        **kwargs: Any,
    ) -> None:
        """Describes the dataset; `download_and_prepare()` then writes it.

        Args:
          name: the dataset's TFDS name.
          classes: class names, in label order.
          splits: split name -> its items; read in order, once.
          to_jpeg: a module-level function, source -> JPEG bytes of a 256 x 256 RGB image; raises
            `UnusableImage` when the source is at fault. Runs in worker processes.
          workers: processes; None is one for each core this process may use.
          progress: called as images are finished.
          **kwargs: passed to the TFDS builder (`data_dir`).
        """
        self.name = name
        self.classes = tuple(classes)
        self.statistics = Statistics(len(classes))
        self.unusable: list[tuple[str, str]] = []
        self.counts: dict[str, int] = {}
        self._items = splits
        self._to_jpeg = to_jpeg
        self._workers = workers or len(os.sched_getaffinity(0))
        self._progress = progress
        super().__init__(file_format='array_record', **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                'image': tfds.features.Image(shape=IMAGE_SHAPE, encoding_format='jpeg'),
                'label': tfds.features.ClassLabel(names=self.classes),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=('image', 'label'))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # everything is already on this machine
        return {split: self._generate_examples(split) for split in self._items}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        items = self._items[split]
        seen = written = 0
        for chunk, (results, statistics) in self._converted(split):
            for item, result in zip(chunk, results, strict=True):
                if isinstance(result, bytes):
                    written += 1
                    yield item.key, {'image': io.BytesIO(result), 'label': item.label}
                else:
                    self.unusable.append((f'{split}/{item.key}', result))
            if statistics is not None:
                self.statistics.merge(statistics)
            seen += len(chunk)
            if self._progress is not None:
                self._progress(split, seen, len(items))
        self.counts[split] = written
        if not written:
            raise EmptySplit(split)

    def _converted(self, split: str) -> Iterator[tuple[Sequence[Item], _Converted]]:
        """Converts a split in chunks, in order, with at most a few chunks for each worker in memory."""
        class_count = len(self.classes) if split == 'train' else None
        items = iter(self._items[split])
        chunks = iter(lambda: tuple(itertools.islice(items, CHUNK)), ())
        if min(self._workers, len(self._items[split]) // CHUNK) < 2:  # starting processes would cost more
            for chunk in chunks:
                yield chunk, _convert(self._to_jpeg, chunk, class_count)
            return
        with contextlib.ExitStack() as stack:
            # Spawned, not forked: a fork copies locks that threads of the parent (JAX has many) may hold.
            pool = stack.enter_context(
                concurrent.futures.ProcessPoolExecutor(self._workers, multiprocessing.get_context('spawn'))
            )
            stack.callback(pool.shutdown, cancel_futures=True)
            pending: collections.deque[tuple[Sequence[Item], concurrent.futures.Future]] = collections.deque()
            for chunk in chunks:
                pending.append((chunk, pool.submit(_convert, self._to_jpeg, chunk, class_count)))
                if len(pending) > 2 * self._workers:
                    done, future = pending.popleft()
                    yield done, future.result()
            while pending:
                done, future = pending.popleft()
                yield done, future.result()


def _convert(to_jpeg: Callable[[Any], bytes], chunk: Sequence[Item], class_count: int | None) -> _Converted:
    """Returns the JPEG bytes of each item, or the reason why it has none, and the statistics if asked for.

    The statistics are of the decoded JPEG, by the decoder that training uses, not of the pixels before
    compression: they describe what the network is shown.
    """
    statistics = None if class_count is None else Statistics(class_count)
    results: list[bytes | str] = []
    for item in chunk:
        try:
            jpeg = to_jpeg(item.source)
        except UnusableImage as e:
            results.append(str(e))
            continue
        results.append(jpeg)
        if statistics is not None:
            statistics.add(simplejpeg.decode_jpeg(jpeg, 'RGB'), item.label)
    return results, statistics
