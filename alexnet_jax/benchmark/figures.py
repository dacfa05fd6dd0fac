"""From samples to the benchmark's figures: the object that --json prints, and the tables are made of."""

from __future__ import annotations

import os
import pathlib
import platform
import statistics
from typing import Any

from alexnet_jax.benchmark.measure import TORCH_FORMS, Measured, Results, Samples
from alexnet_jax.benchmark.statistics import Spread, ratios

PROGRAMS = ('train', 'inference')
EAGER = tuple(f'torch_{form}' for form in TORCH_FORMS if form.startswith('eager'))
Figures = dict[str, Any]


def report(results: list[Results]) -> Figures:
    """The figures of the first batch size, those of all under 'by_batch', and what they were measured on."""
    by_batch = {str(result.setting.batch): of_batch(result) for result in results}
    first = results[0]
    return {
        **by_batch[str(first.setting.batch)],
        'by_batch': by_batch,
        'setting': {key: getattr(first.setting, key) for key in ('width', 'classes', 'allocator')},
        'hardware': {'cpu': cpu_name(), 'cores': os.cpu_count(), 'system': platform.platform()},
        'versions': {'python': platform.python_version(), **first.versions},
    }


def of_batch(results: Results) -> Figures:
    """Figures of one batch size.

    Speeds are medians over rounds, in images/s, and '..._quartiles' the quartiles. Ratios are medians of the ratios of
    each round; 'ratio_to_torch' is to the faster of eager PyTorch's layouts, 'ratio_to_torch_best' to its fastest form,
    both by median speed. 'peak_bytes' is the largest resident set of a process in training, without compiling. None
    stands where something was not measured.
    """
    samples, batch = results.network, results.setting.batch
    gemm = _best(samples, [key for key in samples if key[1].startswith('gemm_')])
    figures: Figures = {'batch': batch}
    for program in PROGRAMS:
        own = samples['one_device', program]
        achieved = [own.flop / seconds for seconds in own.seconds]
        ceiling = [samples[gemm].flop / seconds for seconds in samples[gemm].seconds]
        figures[program] = (
            _speed(own, batch)
            | _ratio('fraction_of_gemm', ratios(achieved, ceiling))
            | _against(samples, program, 'ratio_to_torch', EAGER)
            | _against(samples, program, 'ratio_to_torch_best', [f'torch_{form}' for form in TORCH_FORMS])
        )
    figures['two_device'] = {'ratio_to_one_device': None}
    for program in PROGRAMS:
        own, other = samples['one_device', program], samples['two_device', program]
        ratio = _ratio('ratio_to_one_device', ratios(own.seconds, other.seconds))
        figures['two_device'][program] = _speed(other, batch) | ratio
    figures['two_device']['ratio_to_one_device'] = figures['two_device']['train']['ratio_to_one_device']
    figures['torch'] = {
        form: {program: _speed(samples[f'torch_{form}', program], batch) for program in PROGRAMS}
        for form in TORCH_FORMS
        if (f'torch_{form}', 'train') in samples
    }
    figures['peak_bytes'] = {subject: _peak(all_) for (subject, do), all_ in samples.items() if do == 'train'}
    figures['ceilings'] = _ceilings(samples)
    figures['layers'] = _layers(results.layers) if results.layers else None
    figures['foreign'] = foreign(samples)
    return figures


def _speed(measured: Measured, batch: int) -> Figures:
    return speed_figures(Spread.of([batch / seconds for seconds in measured.seconds]))


def speed_figures(spread: Spread) -> Figures:
    """'images_per_second' and its quartiles."""
    return _ratio('images_per_second', spread)


def _peak(measured: Measured) -> int | None:
    return max((sample.peak_bytes for sample in measured.samples if sample.peak_bytes is not None), default=None)


def _ratio(name: str, spread: Spread) -> Figures:
    return {name: spread.median, f'{name}_quartiles': [spread.low, spread.high]}


def _best(samples: Samples, keys: list[tuple[str, str]]) -> tuple[str, str]:
    return min(keys, key=lambda key: statistics.median(samples[key].seconds))


def _against(samples: Samples, program: str, name: str, subjects: tuple[str, ...] | list[str]) -> Figures:
    keys = [(subject, program) for subject in subjects if (subject, program) in samples]
    if not keys:
        return {name: None, f'{name}_quartiles': None, f'{name}_form': None}
    fastest = _best(samples, keys)
    spread = ratios(samples[fastest].seconds, samples['one_device', program].seconds)
    return {**_ratio(name, spread), f'{name}_form': fastest[0].removeprefix('torch_')}


def _ceilings(samples: Samples) -> Figures:
    """{'gemm_numpy': GFLOP/s, ..., 'copy': GB/s, 'add': GB/s}, medians."""
    return {
        program: statistics.median((measured.flop or measured.moved) / s / 1e9 for s in measured.seconds)
        for (subject, program), measured in samples.items()
        if subject.endswith('ceiling') or subject == 'ceilings'
    }


def _layers(samples: Samples) -> Figures:
    """Each layer's time beside the least that its arithmetic and its memory traffic could take at the ceilings.

    'rows': one for each program; 'seconds', 'gflop', 'megabytes' (of one call), 'bound' ('arithmetic' or 'memory'),
    'rate' (GFLOP/s or GB/s), 'fraction_of_bound'. 'explained': the rows' times over the step's.
    """
    ceilings = _ceilings(samples)
    gemm = max(rate for name, rate in ceilings.items() if name.startswith('gemm_')) * 1e9
    memory = max(ceilings['copy'], ceilings['add']) * 1e9
    parts = {do: measured for (subject, do), measured in samples.items() if subject == 'layers' and do not in PROGRAMS}
    step = samples['layers', 'train'].seconds
    rows = []
    for name, part in parts.items():
        seconds = Spread.of(part.seconds)
        arithmetic = part.flop / gemm >= part.moved / memory
        rows.append({
            'name': name,
            **_ratio('seconds', seconds),
            'gflop': part.flop / 1e9,
            'megabytes': part.moved / 1e6,
            'bound': 'arithmetic' if arithmetic else 'memory',
            'rate': (part.flop if arithmetic else part.moved) / seconds.median / 1e9,
            'fraction_of_bound': max(part.flop / gemm, part.moved / memory) / seconds.median,
        })  # fmt: skip
    convolutions = [row for row in rows if row['name'].startswith('conv') and row['gflop']]
    forward = [row for row in convolutions if row['name'].endswith('forward')]
    backward = [row for row in convolutions if not row['name'].endswith('forward')]
    totals = [sum(times) for times in zip(*(part.seconds for part in parts.values()), strict=True)]
    return {
        'gemm_gflops': gemm / 1e9,
        'memory_gb_per_second': memory / 1e9,
        'rows': rows,
        'convolutions_forward_fraction_of_gemm': _fraction(forward, gemm),
        'convolutions_backward_fraction_of_gemm': _fraction(backward, gemm),
        'step_seconds': statistics.median(step),
        'explained': ratios(totals, step).median,
    }


def _fraction(rows: list[Figures], gemm: float) -> float:
    return sum(row['gflop'] for row in rows) * 1e9 / sum(row['seconds'] for row in rows) / gemm


def foreign(samples: Samples) -> Figures:
    """Shares of the machine's cores that others used during samples: 'median' and 'worst', or None."""
    shares = [sample.foreign for measured in samples.values() for sample in measured.samples]
    known = [share for share in shares if share is not None]
    return {'median': statistics.median(known) if known else None, 'worst': max(known, default=None)}


def cpu_name() -> str:
    """The processor's name, as the system tells it."""
    path = pathlib.Path('/proc/cpuinfo')
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()
