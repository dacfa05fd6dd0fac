"""Shows how far a long preparation has come, on standard error."""

import contextlib
import sys
import time
from collections.abc import Iterator

from alexnet_jax.data.preparing.shards import Progress

PLAIN_INTERVAL = 10.0  # seconds between lines where there is no terminal


@contextlib.contextmanager
def show_progress(unit: str = 'images') -> Iterator[Progress]:
    """Gives a callable (split, done, total): bars on a terminal, otherwise a line every ten seconds."""
    if not sys.stderr.isatty():
        last = time.monotonic()

        def line(split: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= PLAIN_INTERVAL:
                last = time.monotonic()
                print(f'{split}: {done:,} of {total:,} {unit}', file=sys.stderr, flush=True)

        yield line
        return

    from rich.console import Console  # only a terminal needs it
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def bar(split: str, done: int, total: int) -> None:
            if split not in tasks:
                tasks[split] = bars.add_task(split, total=total)
            bars.update(tasks[split], completed=done)

        yield bar
