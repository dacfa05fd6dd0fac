"""Formats a diagnosis as one screen of text, at most 100 columns wide, and as JSON."""

import dataclasses
import functools
import math
import textwrap
from typing import Any

import numpy as np

from alexnet_jax.doctor.examine import Diagnosis
from alexnet_jax.doctor.measurements import Measurements
from alexnet_jax.model.spec import Relu

COLUMNS = 100
# JSON has the names of the first release.
_JSON_KEYS = {'variation': 'differs', 'updates': 'moves', 'frozen_layers': 'held', 'correlations': 'alike'}


def format_screen(diagnosis: Diagnosis) -> str:
    """Formats what was examined, data, steps, dropout, layers, notes and verdict."""
    measurements = diagnosis.measurements
    run, start = measurements.snapshot.run, measurements.network.start
    network = f'{run.variant.name}, width {run.config.width:g}'
    dataset = f'{run.config.dataset} ({run.examples:,} images, {run.num_classes} classes)'
    where = f'at step {start}' if start else 'before its first step'
    title = textwrap.wrap(f'{measurements.snapshot.name}: {network}, on {dataset}, {where}', COLUMNS)
    lines = [*title, '', *_wrap(_describe(measurements)), '', *_format_layers(measurements), '']
    lines += _wrap([('note', note) for note in diagnosis.notes] + _describe_verdict(diagnosis))
    return '\n'.join(lines)


def make_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Makes {'verdict', 'findings', 'notes', 'run', 'data', 'network'} for json.dumps; non-finite numbers are null."""
    measurements, run = diagnosis.measurements, diagnosis.measurements.snapshot.run
    described = {
        'name': measurements.snapshot.name,
        'step': measurements.network.start,
        'variant': run.variant.name,
        'dataset': run.config.dataset,
        'classes': run.num_classes,
        'chance_loss': measurements.chance_loss,
        'learning_rate': measurements.learning_rate,
        'usual_learning_rate': measurements.recipe.learning_rate,
    }
    network = dataclasses.asdict(measurements.network)
    for stats in (*network['before'].values(), *network['after'].values()):
        highest = stats.pop('highest')
        stats |= {'units': len(highest), 'silent': float((highest <= 0).mean())}
    report: dict[str, Any] = {
        'verdict': diagnosis.findings[0].cause if diagnosis.findings else 'nothing found',
        'findings': [dataclasses.asdict(finding) for finding in diagnosis.findings],
        'notes': diagnosis.notes,
        'run': described,
        'data': dataclasses.asdict(measurements.data),
        'network': network | {'update_ratio': measurements.update_ratio},
    }
    return _convert_to_json(report)


def _convert_to_json(value: Any) -> Any:
    """Converts NumPy's numbers to Python's, NaN and infinities to None, and names to those of JSON."""
    if isinstance(value, dict):
        return {_JSON_KEYS.get(key, key): _convert_to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_convert_to_json(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def _wrap(entries: list[tuple[str, str]]) -> list[str]:
    """Wraps the text of each (name, text) behind its name and a margin."""
    wrap = functools.partial(textwrap.wrap, width=COLUMNS, subsequent_indent=' ' * 10)
    return [line for name, text in entries for line in wrap(text, initial_indent=f'{name:10}')]


def _describe(measurements: Measurements) -> list[tuple[str, str]]:
    """Describes data and steps, an entry for each of `_wrap`."""
    run, data, network = measurements.snapshot.run, measurements.data, measurements.network
    config, inputs, classes = run.config, network.inputs, run.num_classes
    entropy = f'{data.entropy / measurements.chance_loss:.2f} of ln({classes})' if classes > 1 else '0'
    seen = f'{data.classes_seen} of {classes} classes, the largest {data.largest:.1%}, entropy {entropy}'
    entries = [('labels', f'{data.images:,} images, {seen}')]
    if probe := data.probe:
        permuted = f'with permuted labels on {probe.permuted_accuracy:.1%}: {probe.sigmas:+.1f} sigma'
        entries.append(('', f'a linear probe of thumbnails is right on {probe.accuracy:.1%}, {permuted}'))
    pixels = f'{data.pixel_range[0]}..{data.pixel_range[1]}, mean {data.pixel_mean:.1f}, spread {data.pixel_spread:.1f}'
    means = f'RGB means {" ".join(f"{mean:.1f}" for mean in inputs.mean)}, spread {inputs.spread:.1f}'
    read = f'the network reads {inputs.lowest:.3g}..{inputs.highest:.3g}; in 0..255 units {means}'
    shown = np.unique(np.linspace(0, len(network.losses) - 1, 8).round().astype(int))  # the first and last among them
    losses = f'{" ".join(f"{network.losses[i]:.3g}" for i in shown)} over {len(network.losses)} steps'
    rule, usual = f'biases x{run.variant.bias_rate:g}', f'; the recipe has {measurements.recipe.learning_rate:g}'
    if config.trust_coefficient is not None:
        rule, usual = f'LARS, trust {config.trust_coefficient:g}', ''
    rate = f'{network.rates[0]:.3g} for {config.batch_size} images, {rule}'
    update = f'momentum {config.momentum:g}, weight decay {config.weight_decay:g}'
    entries += [('pixels', pixels), ('', read), ('loss', f'{losses}; ln(classes) is {measurements.chance_loss:.2f}')]
    entries.append(('rate', f'{rate}, {update}{usual}'))
    if dropout := network.dropout:
        correlations = ', '.join(f'{what} {_format(value)}' for what, value in dropout.correlations.items())
        entries.append(('dropout', f'kept {_format(dropout.kept)}; correlation between {correlations}'))
    return entries


def _format(value: float | None) -> str:
    return '-' if value is None else f'{value:+.2f}' if value < 0.1 else f'{value:.2f}'


def _format_layers(measurements: Measurements) -> list[str]:
    """Formats a table, a line for each layer, of `LayerStats` and `UpdateStats`."""
    network = measurements.network
    alive = isinstance(measurements.snapshot.run.variant.activation, Relu)
    shares_of = measurements.get_dead_shares if alive else measurements.get_saturated_shares
    dead, later, lost = shares_of(after=False), shares_of(after=True), 'dead' if alive else 'sat.'
    lines = [
        f'{"layer":7} {"init std":>9} {"bias":>5}  {"mean":>9} {"spread":>9} {"differs":>8} {lost:>5} {"later":>6}  '
        f'{"gradient":>9} {"update/weight":>14}'
    ]
    for layer in measurements.snapshot.run.variant.layers:
        name, stats, update = layer.name, network.before[layer.name], network.updates[layer.name]
        ratio = 'held' if name in network.frozen_layers else f'{update.ratio:.2g}'
        std = 'uniform' if layer.init_std is None else f'{layer.init_std:.3g}'
        bias = 'unif.' if layer.init_bias is None else f'{layer.init_bias:.3g}'
        shares = [f'{share[name]:.0%}' if name in share else '' for share in (dead, later)]
        lines.append(
            f'{name:7} {std:>9} {bias:>5}  {stats.mean:9.3g} {stats.spread:9.3g} {stats.variation:8.1%} '
            f'{shares[0]:>5} {shares[1]:>6}  {update.gradient:9.3g} {ratio:>14}'
        )
    units = 'ReLU' if alive else 'its units'
    what = 'dead: units that give nothing' if alive else 'sat.: what has under 1 % of the largest slope'
    legend = (
        f'mean, spread: of what the layer gives before {units}. differs: how much of it differs from image to image. '
        f'{what}; later: after the steps.'
    )
    return lines + textwrap.wrap(legend, COLUMNS)


def _describe_verdict(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    if not diagnosis.findings:
        return [('verdict', 'nothing found that would keep it from learning')]
    first, *others = diagnosis.findings
    entries = [('verdict', f'{first.cause}: {first.seen}'), ('remedy', first.remedy)]
    return entries + [('also', f'{other.cause}: {other.seen}; {other.remedy}') for other in others]
