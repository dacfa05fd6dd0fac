"""From samples to the figures of the input pipeline: the object that `bench input --json` prints."""

from __future__ import annotations

import os
import platform
from typing import Any

from alexnet_jax.benchmark.figures import Figures, cpu_name, foreign, speed_figures
from alexnet_jax.benchmark.measure import TF_FORMS, Measured, Results
from alexnet_jax.benchmark.statistics import Spread, ratios

STAGES = {
    'read': 'read a record',
    'decode': 'decode it, 256x256',
    'crop': 'crop 224x224, mirror half',
    'draw': 'draw crop, flip and lighting',
    'batch': 'all of these: a batch on one thread',
    'transfer': 'move the batch to the device',
    'photo_read': 'read a photograph',
    'photo_decode': 'decode it',
    'photo_square': 'decode it, resize to 256x256',
    'photo_prepare': '... and encode, decode, sum: prepare',
    'photo_batch': 'a batch of crops on one thread',
}
KINDS = {'': 'prepared records', 'photo_': 'photographs'}


def report(results: Results, *, appetite: float | None) -> Figures:
    """The figures of one measurement.

    Speeds are medians over rounds in images/s, '..._quartiles' the quartiles. Of 'stages' they are for each second of
    CPU time: for each core. 'records' and 'photographs' are the whole pipeline by its number of threads;
    'tf' is tf.data with as many threads as there are cores, in each form, with the 'ratio' to it of our most threads,
    the median over rounds, and 'ratio_to_tf' is the smaller of them; 'ratio_per_core' is of CPU time, which others on
    the machine disturb less. 'limit' is which of 'model' and 'input' is the
    slower one, 'headroom' the pipeline's speed over the model's.

    Args:
      results: of `measure.measure_input`.
      appetite: the model's images/s; None: as measured.
    """
    samples, batch = results.network, results.setting.batch
    own = {program: measured for (subject, program), measured in samples.items() if subject == 'input'}
    figures: Figures = {'batch': batch, 'dataset': results.setting.dataset, 'stages': {}}
    for name in STAGES:
        rates = [batch / seconds for seconds in _cpu_seconds(own[name])]
        figures['stages'][name] = speed_figures(Spread.of(rates))
    figures['bytes'] = {name: own[name].moved / batch for name in ('read', 'photo_read', 'transfer')}
    for prefix, kind in KINDS.items():
        threads = {int(name.rsplit('_', 1)[1]): m for name, m in own.items() if name.startswith(f'{prefix}pipeline_')}
        figures[kind] = {'threads': {str(n): _speed(measured, batch) for n, measured in threads.items()}}
        figures[kind] |= _against_tf(results, f'{prefix}pipeline', threads[max(threads)])
    if appetite is None:
        figures['appetite'] = _speed(samples['one_device', 'train'], batch)['images_per_second']
    else:
        figures['appetite'] = appetite
    most = list(figures['prepared records']['threads'].values())[-1]['images_per_second']
    figures['headroom'] = most / figures['appetite']
    figures['limit'] = 'model' if figures['headroom'] > 1 else 'input'
    figures['foreign'] = foreign(samples)
    figures['hardware'] = {'cpu': cpu_name(), 'cores': os.cpu_count(), 'system': platform.platform()}
    figures['versions'] = {'python': platform.python_version(), **results.versions}
    return figures


def _speed(measured: Measured, batch: int) -> Figures:
    return speed_figures(Spread.of([batch / seconds for seconds in measured.seconds]))


def _cpu_seconds(measured: Measured) -> list[float]:
    return [sample.cpu_seconds for sample in measured.samples]


def _against_tf(results: Results, program: str, own: Measured) -> dict[str, Any]:
    forms = {form: results.network.get((f'tf_{form}', program)) for form in TF_FORMS}
    found = {form: measured for form, measured in forms.items() if measured}
    if not found:
        return {'tf': None, 'ratio_to_tf': None}
    figures = {}
    for form, measured in found.items():
        figures[form] = _speed(measured, results.setting.batch)
        cores = ratios(_cpu_seconds(measured), _cpu_seconds(own))
        for name, ratio in (('ratio', ratios(measured.seconds, own.seconds)), ('ratio_per_core', cores)):
            figures[form] |= {name: ratio.median, f'{name}_quartiles': [ratio.low, ratio.high]}
    return {'tf': figures, 'ratio_to_tf': min(form['ratio'] for form in figures.values())}
