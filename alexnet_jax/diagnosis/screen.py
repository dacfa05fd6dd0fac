"""A diagnosis as one screen of text, at most 100 columns wide, and as JSON."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from typing import Any

import numpy as np

from alexnet_jax.diagnosis.case import Case
from alexnet_jax.diagnosis.examine import Diagnosis

COLUMNS = 100
_MARGIN = 10  # of the names in front of lines


def text(diagnosis: Diagnosis) -> str:
    """The screen: what was looked at, data, steps, dropout, layers, notes, verdict."""
    case = diagnosis.case
    lines = [*textwrap.wrap(_title(case), COLUMNS), '', *_data(case), *_steps(case), '', *_layers(case), '']
    for note in diagnosis.notes:
        lines += _line('note', note)
    return '\n'.join([*lines, *_verdict(diagnosis)])


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """{'verdict', 'findings', 'notes', 'run', 'data', 'network'}; numbers that are none are null."""
    case = diagnosis.case
    run = {
        'name': case.subject.name,
        'step': case.network.start,
        'variant': case.subject.variant.name,
        'dataset': case.subject.dataset,
        'classes': case.subject.classes,
        'chance_loss': case.chance,
        'learning_rate': case.rate,
        'usual_learning_rate': case.usual.learning_rate,
    }
    network = dataclasses.asdict(case.network)
    for looks in (network['before'], network['after']):
        for look in looks.values():
            highest = look.pop('highest')
            look |= {'units': len(highest), 'silent': float((highest <= 0).mean())}
    found: dict[str, Any] = {
        'verdict': diagnosis.findings[0].cause if diagnosis.findings else 'nothing found',
        'findings': [dataclasses.asdict(finding) for finding in diagnosis.findings],
        'notes': diagnosis.notes,
        'run': run,
        'data': dataclasses.asdict(case.data),
        'network': network | {'update_ratio': case.ratio},
    }
    return _plain(found)


def _plain(value: Any) -> Any:
    """For json.dumps: NumPy's numbers as Python's, NaN and infinities as None."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def _title(case: Case) -> str:
    subject = case.subject
    where = f'at step {case.network.start}' if case.network.start else 'before its first step'
    return (
        f'{subject.name}: {subject.variant.name}, width {subject.config.width:g}, on {subject.dataset} '
        f'({subject.examples:,} images, {subject.classes} classes), {where}'
    )


def _data(case: Case) -> list[str]:
    data, inputs = case.data, case.network.inputs
    entropy = f'{data.entropy / case.chance:.2f} of ln({case.subject.classes})' if case.subject.classes > 1 else '0'
    labels = (
        f'{data.images:,} images, {data.classes_seen} of {case.subject.classes} classes, '
        f'the largest {data.largest:.1%}, entropy {entropy}'
    )
    lines = _line('labels', labels)
    if data.probe is not None:
        probe = data.probe
        lines += _line(
            '',
            f'a linear probe of thumbnails is right on {probe.accuracy:.1%}, with permuted labels on '
            f'{probe.permuted_accuracy:.1%}: {probe.sigmas:+.1f} sigma',
        )
    low, high = data.pixel_range
    lines += _line('pixels', f'{low}..{high}, mean {data.pixel_mean:.1f}, spread {data.pixel_spread:.1f}')
    channels = ' '.join(f'{mean:.1f}' for mean in inputs.mean)
    read = f'RGB means {channels}, spread {inputs.spread:.1f}'
    return lines + _line('', f'the network reads {inputs.lowest:.3g}..{inputs.highest:.3g}; in 0..255 units {read}')


def _steps(case: Case) -> list[str]:
    network, config = case.network, case.subject.config
    losses = ' '.join(f'{loss:.3g}' for loss in _some(network.losses, 8))
    lines = _line('loss', f'{losses} over {len(network.losses)} steps; ln(classes) is {case.chance:.2f}')
    bias_rate = case.subject.variant.bias_rate
    lines += _line(
        'rate',
        f'{network.rates[0]:.3g} for {config.batch_size} images, biases x{bias_rate:g}, momentum {config.momentum:g}, '
        f'weight decay {config.weight_decay:g}; the recipe has {case.usual.learning_rate:g}',
    )
    if network.dropout is None:
        return lines
    alike = ', '.join(f'{what} {_number(found)}' for what, found in network.dropout.alike.items())
    return lines + _line('dropout', f'kept {_number(network.dropout.kept)}; correlation between {alike}')


def _some(values: list[float], count: int) -> list[float]:
    """At most `count` of them, evenly, the first and the last among them."""
    return [values[i] for i in np.unique(np.linspace(0, len(values) - 1, count).round().astype(int))]


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:+.2f}' if value < 0.1 else f'{value:.2f}'


def _layers(case: Case) -> list[str]:
    """One line a layer; `differs` and the others as in watching.LayerLook and network.LayerMoves."""
    network, variant = case.network, case.subject.variant
    dead, later = case.dead(after=False), case.dead(after=True)
    lines = [
        f'{"layer":7} {"init std":>9} {"bias":>5}  {"mean":>9} {"spread":>9} {"differs":>8} {"dead":>5} {"later":>6}  '
        f'{"gradient":>9} {"update/weight":>14}'
    ]
    for layer in variant.layers:
        look, moves = network.before[layer.name], network.moves[layer.name]
        ratio = 'held' if layer.name in network.held else f'{moves.ratio:.2g}'
        std = 'uniform' if layer.init_std is None else f'{layer.init_std:.3g}'
        lines.append(
            f'{layer.name:7} {std:>9} {layer.init_bias:5.3g}  {look.mean:9.3g} {look.spread:9.3g} {look.differs:8.1%} '
            f'{_share(dead, layer.name):>5} {_share(later, layer.name):>6}  {moves.gradient:9.3g} {ratio:>14}'
        )
    explained = (
        'mean, spread: of what the layer gives before ReLU. differs: how much of it differs from image to image. dead: '
        'units that give nothing; later: after the steps.'
    )
    return lines + textwrap.wrap(explained, COLUMNS)


def _share(shares: dict[str, float], layer: str) -> str:
    return f'{shares[layer]:.0%}' if layer in shares else ''


def _verdict(diagnosis: Diagnosis) -> list[str]:
    if not diagnosis.findings:
        return _line('verdict', 'nothing found that would keep it from learning')
    first, *others = diagnosis.findings
    lines = _line('verdict', f'{first.cause}: {first.seen}') + _line('remedy', first.remedy)
    for other in others:
        lines += _line('also', f'{other.cause}: {other.seen}; {other.remedy}')
    return lines


def _line(name: str, text: str) -> list[str]:
    """`text` behind `name` and a margin, wrapped."""
    first, rest = f'{name:{_MARGIN}}', ' ' * _MARGIN
    return textwrap.wrap(text, COLUMNS, initial_indent=first, subsequent_indent=rest)
