"""What the figures of every benchmark share: medians and quartiles, the machine, its noise, and their text."""

import os
import pathlib
import platform
import statistics
from collections.abc import Sequence
from typing import Any

from alexnet_jax.benchmark.measure import Samples

Figures = dict[str, Any]
NOISY = 0.1  # share of the cores that others may use before the figures come with a warning


def summarise_values(name: str, values: Sequence[float]) -> Figures:
    """Returns the median of two values or more as `name`, and [first, third] quartile as '<name>_quartiles'.

    Quartiles are interpolated, the smallest value being the 0th percentile.
    """
    low, median, high = statistics.quantiles(values, n=4, method='inclusive')
    return {name: median, f'{name}_quartiles': [low, high]}


def summarise_ratios(name: str, ours: Sequence[float], theirs: Sequence[float]) -> Figures:
    """Summarises ours / theirs, round by round: what disturbs a whole round disturbs both, and cancels."""
    return summarise_values(name, [a / b for a, b in zip(ours, theirs, strict=True)])


def summarise_speed(seconds: Sequence[float], batch: int) -> Figures:
    """Returns 'images_per_second' and its quartiles from the seconds that a batch took in each round."""
    return summarise_values('images_per_second', [batch / s for s in seconds])


def summarise_foreign(samples: Samples) -> Figures:
    """Returns the 'median' and 'worst' share of the machine's cores that others used during samples, or None."""
    shares = [sample.foreign for measured in samples.values() for sample in measured.samples]
    known = [share for share in shares if share is not None]
    return {'median': statistics.median(known) if known else None, 'worst': max(known, default=None)}


def describe_machine(versions: dict[str, str]) -> Figures:
    """Returns 'hardware' and 'versions', Python's beside the libraries'."""
    cpuinfo = pathlib.Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    cpu = names[0] if names else platform.processor() or platform.machine()
    hardware = {'cpu': cpu, 'cores': os.cpu_count(), 'system': platform.platform()}
    return {'hardware': hardware, 'versions': {'python': platform.python_version(), **versions}}


def format_machine(figures: Figures) -> list[str]:
    """Formats what `describe_machine` returns as two lines."""
    hardware = figures['hardware']
    versions = ', '.join(f'{name} {version}' for name, version in figures['versions'].items())
    return [f'{hardware["cpu"]}, {hardware["cores"]} cores; {hardware["system"]}', versions]


def format_spread(figures: Figures, key: str, digits: int) -> str:
    """Formats a median and its quartiles."""
    low, high = figures[f'{key}_quartiles']
    return f'{figures[key]:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})'


def format_row(widths: Sequence[int], title: str, *cells: str) -> str:
    """Formats a row of a table: the title flush left, the cells flush right."""
    return f'{title:{widths[0]}}' + ''.join(f'{cell:>{w}}' for cell, w in zip(cells, widths[1:], strict=False))


def format_foreign(foreign: Figures) -> str:
    """Formats what `summarise_foreign` returns as one line, with a warning past NOISY."""
    if foreign['median'] is None:
        return 'how much others used the machine is unknown on this system'
    line = f'others used {foreign["median"]:.0%} of the cores (median sample; worst {foreign["worst"]:.0%})'
    return line + (': NOISY, do not rely on these figures' if foreign['median'] > NOISY else '')
