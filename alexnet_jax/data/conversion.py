"""Converts items to records over all cores, in order, and sums up what training must know of them."""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from alexnet_jax.data.items import Item, Plan, UnusableImage
from alexnet_jax.data.statistics import Statistics

CHUNK = 64  # images a worker takes at once: large against the 2 MB of sums that it sends back

Converted = tuple[list[bytes | str], Statistics | None]  # per item its JPEG or the reason; sums if asked for


def cores() -> int:
    """How many processes may run at once."""
    return len(os.sched_getaffinity(0))


def convert(
    plan: Plan,
    items: Iterator[Item],
    *,
    count: int,
    summed: bool,
    workers: int,
) -> Iterator[tuple[Sequence[Item], Converted]]:
    """Converts items in chunks, in order, with at most a few chunks for each worker in memory.

    Args:
      plan: whose records they become.
      items: in order.
      count: how many items there are: processes are started only where they pay.
      summed: whether statistics are wanted.
      workers: processes.
    """
    begin = functools.partial(Statistics, len(plan.classes), record_size=plan.record_size) if summed else None
    work = functools.partial(_convert, plan.to_record, plan.decode, begin, plan.originals is None)
    chunks = iter(lambda: tuple(itertools.islice(items, CHUNK)), ())
    if min(workers, count // CHUNK) < 2:
        for chunk in chunks:
            yield chunk, work(chunk)
        return
    with contextlib.ExitStack() as stack:
        # Spawned, not forked: a fork copies locks that threads of the parent (JAX has many) may hold.
        pool = stack.enter_context(
            concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), _end_with_parent)
        )
        stack.callback(pool.shutdown, cancel_futures=True)
        pending: collections.deque[tuple[Sequence[Item], concurrent.futures.Future]] = collections.deque()
        for chunk in chunks:
            pending.append((chunk, pool.submit(work, chunk)))
            if len(pending) > 2 * workers:
                done, future = pending.popleft()
                yield done, future.result()
        while pending:
            done, future = pending.popleft()
            yield done, future.result()


def _end_with_parent() -> None:
    """Has a worker end when the process that it works for does, killed or not; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _convert(
    to_record: Callable[[Any], bytes],
    decode: Callable[[bytes], np.ndarray],
    begin: Callable[[], Statistics] | None,
    keep: bool,  # bound by partial, in order
    chunk: Sequence[Item],
) -> Converted:
    """Returns the record of each item (empty if not to keep), or the reason why it has none; the statistics if wanted.

    The statistics are of the decoded record, by the decoder that training uses, not of the pixels before compression:
    they describe what the network is shown.
    """
    statistics = None if begin is None else begin()
    results: list[bytes | str] = []
    for item in chunk:
        try:
            record = to_record(item.source)
            if statistics is not None or not keep:  # what is not kept must be usable as it is
                pixels = decode(record)
            if statistics is not None:
                statistics.add(pixels, item.label)
        except UnusableImage as e:
            results.append(str(e))
            continue
        results.append(record if keep else b'')
    return results, statistics
