"""Converts examples to records over all cores, in order, and sums up the statistics that training needs."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence

from alexnet_jax.data.photo import UnusableImage
from alexnet_jax.data.preparing.dataset_spec import DatasetSpec, Example
from alexnet_jax.data.statistics import Statistics

CHUNK = 64  # images a worker takes at once: large against the 2 MB of sums that it sends back

# Per example its JPEG or the reason, and the number that equal records share, 0 where there is none; sums if asked for.
Converted = tuple[list[bytes | str], list[int], Statistics | None]


def count_cores() -> int:
    """Counts the processes that may run at once."""
    return len(os.sched_getaffinity(0))


def convert_examples(
    spec: DatasetSpec, examples: Iterator[Example], *, count: int, with_statistics: bool, workers: int
) -> Iterator[tuple[Sequence[Example], Converted]]:
    """Converts examples in chunks, in order, with at most a few chunks for each of `workers` processes in memory.

    `count` is the number of examples: processes are started only where they pay.
    """
    # Workers need no list of examples.
    convert = functools.partial(_convert, dataclasses.replace(spec, splits={}, unusable=()), with_statistics)
    chunks = iter(lambda: tuple(itertools.islice(examples, CHUNK)), ())
    if min(workers, count // CHUNK) < 2:
        yield from ((chunk, convert(chunk)) for chunk in chunks)
        return
    # Spawned, not forked: a fork copies locks that threads of the parent (JAX has many) may hold.
    spawn = multiprocessing.get_context('spawn')
    others = multiprocessing.active_children()
    pool = concurrent.futures.ProcessPoolExecutor(workers, spawn, _exit_with_parent)
    try:
        pending: collections.deque[tuple[Sequence[Example], concurrent.futures.Future]] = collections.deque()
        for chunk in chunks:
            with _block_interrupts():
                future = pool.submit(convert, chunk)
            pending.append((chunk, future))
            if len(pending) > 2 * workers:
                converted, future = pending.popleft()
                yield converted, future.result()
        yield from ((converted, future.result()) for converted, future in pending)
    except BaseException:  # also of who reads this: nobody wants what is being converted
        for process in set(multiprocessing.active_children()) - set(others):
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _block_interrupts() -> Iterator[None]:
    """Keeps Ctrl-C from processes that are started here, so that this one alone says a word; it ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_with_parent() -> None:
    """Ends a worker when its parent process ends, killed or not; otherwise it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _convert(spec: DatasetSpec, with_statistics: bool, chunk: Sequence[Example]) -> Converted:
    """Returns each example's record (empty if not to keep), or why it has none; hashes; statistics if wanted.

    The statistics are of the decoded record, by the decoder that training uses, not of the pixels before compression:
    they describe what the network is shown.
    """
    statistics = Statistics(len(spec.classes), record_size=spec.record_size) if with_statistics else None
    results: list[bytes | str] = []
    digests: list[int] = []
    for example in chunk:
        try:
            record = spec.to_record(example.source)
            if statistics is not None:
                statistics.add(spec.decode(record), example.label)
            elif spec.originals is not None:  # what is not kept must be usable as it is
                spec.decode(record)
            results.append(record if spec.originals is None else b'')
            digests.append(int.from_bytes(hashlib.blake2b(record, digest_size=8).digest()))
        except UnusableImage as error:
            results.append(str(error))
            digests.append(0)
    return results, digests, statistics
