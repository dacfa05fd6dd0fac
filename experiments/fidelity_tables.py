"""Writes the tables of docs/fidelity.md from the data that the code runs on: python -m experiments.fidelity_tables."""

import pathlib
from collections.abc import Callable

from alexnet_jax.data.preprocessing import describe_preprocessing
from alexnet_jax.evaluation.references import load_references
from alexnet_jax.model.ablations import ABLATIONS
from alexnet_jax.model.cifar10 import CIFAR10, DECAY
from alexnet_jax.model.spec import (
    AveragePool,
    ChannelNorm,
    Conv,
    Dense,
    MaxPool,
    Operation,
    Relu,
    Sigmoid,
    SpatialNorm,
    Tanh,
    Variant,
    get_layer_sizes,
)
from alexnet_jax.model.zoo import DEEP, LOGS, VARIANTS

DOCUMENT = pathlib.Path(__file__).parents[1] / 'docs/fidelity.md'
AUTHOR_ABLATIONS = ('half', 'no_exchange', 'no_norm', 'no_overlap')  # a table of their own
MAIN_NETWORKS = tuple(name for name in VARIANTS if name not in AUTHOR_ABLATIONS)


def _operation(operation: Operation) -> str:
    match operation:
        case Relu():
            return 'ReLU'
        case Tanh():
            return 'tanh'
        case Sigmoid():
            return 'sigmoid'
        case MaxPool(window, stride):
            return f'pool {window}/{stride}'
        case AveragePool(window, stride):
            return f'average {window}/{stride}' + ' by whole windows' * (operation.divides_by == 'window')
        case ChannelNorm():
            return 'norm'
        case SpatialNorm():
            return 'spatial norm'


def _operations(variant: Variant, index: int) -> str:
    return ', '.join(map(_operation, variant.convs[index].then))


def _norm(variant: Variant, kind: type) -> str:
    norms = {operation for conv in variant.convs for operation in conv.then if isinstance(operation, kind)}
    if not norms:
        return 'none'
    (norm,) = norms
    across = ', across towers' if getattr(norm, 'across_towers', False) else ''
    return f'k {norm.k:g}, n {norm.size}, alpha {norm.alpha:g}, beta {norm.beta:g}{across}'


def _padding(variant: Variant) -> str:
    (before, after), _ = variant.convs[0].padding
    conv = variant.convs[0]
    padded = variant.input_size + before + after
    outputs = (padded - conv.kernel) // conv.stride + 1
    zeros = 'no zeros' if not before + after else f'{before} zeros before, {after} after'
    return f'{conv.kernel}x{conv.kernel}/{conv.stride}, {zeros}: {outputs}x{outputs}'


def _per_layer(values: list[float | None]) -> str:
    if set(values) == {None}:
        return 'uniform, 1/sqrt(fan-in)'
    names = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')
    usual = max(set(values), key=values.count)
    others: dict[float | None, list[str]] = {}
    for name, value in zip(names, values, strict=True):
        if value != usual:
            others.setdefault(value, []).append(name)
    return ''.join([f'{usual:g}', *(f'; {" ".join(layers)} {value:g}' for value, layers in others.items())])


def _lighting(variant: Variant) -> str:
    lighting = variant.lighting
    if not lighting.strength:
        return 'none'
    kind = {'eigenvalue': 'eigenvalue of 0..1 pixels', 'standard_deviation': 'root of it, 0..255'}[lighting.scale]
    divided = f', image / {lighting.divisor:g}' if lighting.divisor != 1 else ''
    until = f', to {lighting.until:.1%} of the run' if lighting.until < 1 else ''
    return f'N(0, {lighting.strength:g}) x {kind}{divided}{until}'


def _slowed(variant: Variant) -> str:
    return '; '.join(f'{s.layer} x{s.factor:g} from {s.after:.1%}' for s in variant.lr_multipliers) or 'none'


def _initial_biases(variant: Variant) -> str:
    if variant.convs[0].init_std is None:
        return 'uniform, 1/sqrt(fan-in)'
    return _per_layer([layer.init_bias for layer in (*variant.convs, *variant.dense)])


def _dropout(variant: Variant) -> str:
    scaled = 'in training' if variant.inverted_dropout else 'in testing'
    return f'{variant.dropout_rate:g} of the {variant.drops} of fc6, fc7; scaled {scaled}'


POINTS: dict[str, Callable[[Variant], str]] = {
    'crop': lambda v: (
        f'{v.input_size} of {v.record_size}' + (f', {v.images_per_crop} images share it' * (v.images_per_crop > 1))
    ),
    'squares': lambda v: f'{describe_preprocessing(v.preprocessing, v.record_size)}',
    'mean': lambda v: {'centre': 'the centre of the mean image', 'crop': "the crop's own part of it"}[v.mean_at],
    'conv1': _padding,
    'kernels': lambda v: '-'.join(str(conv.features) for conv in v.convs),
    'towers': lambda v: f'{v.towers}' + (f', exchange before {" ".join(v.exchanges)}' if v.divisible else ''),
    'layer 1': lambda v: _operations(v, 0),
    'layer 2': lambda v: _operations(v, 1),
    'channel norm': lambda v: _norm(v, ChannelNorm),
    'spatial norm': lambda v: _norm(v, SpatialNorm),
    'initial weights': lambda v: _per_layer([layer.init_std for layer in (*v.convs, *v.dense)]),
    'initial biases': _initial_biases,
    'bias rate': lambda v: f"{v.bias_rate:g} x the weights'" + ' in the first step, never lowered' * (not v.bias_drops),
    'slowed': _slowed,
    'dropout': _dropout,
    'lighting': _lighting,
    'parameters': lambda v: f'{sum(row.weights + row.biases for row in get_layer_sizes(v, num_classes=1000)):,}',
    'multiply-accumulates': lambda v: f'{sum(row.macs for row in get_layer_sizes(v, num_classes=1000)):,}',
}


def networks() -> str:
    """Every point of the networks that differ by more than a part, and where it is written."""
    lines = ['| | ' + ' | '.join(f'`{name}`' for name in MAIN_NETWORKS) + ' |', '|---' * (len(MAIN_NETWORKS) + 1) + '|']
    for point, describe in POINTS.items():
        cells = []
        for name in MAIN_NETWORKS:
            variant = VARIANTS[name]
            source = dict(variant.sources).get(point)
            cells.append(describe(variant) + (f' *({source})*' if source else ''))
        lines.append(f'| {point} | ' + ' | '.join(cells) + ' |')
    lines.append('| source | ' + ' | '.join(VARIANTS[name].source for name in MAIN_NETWORKS) + ' |')
    return '\n'.join(lines)


def ablations() -> str:
    """The author's networks without a part: what differs from `released`, by the data."""
    lines = ['| network | differs from `released` in | rate / 10 after epoch | parameters | source |', '|---' * 5 + '|']
    for name in AUTHOR_ABLATIONS:
        variant, whole = VARIANTS[name], VARIANTS['released']
        changed = [f'{p}: {d(variant)}' for p, d in POINTS.items() if d(variant) != d(whole) and p != 'parameters']
        parameters = POINTS['parameters'](variant)
        epochs, drops = LOGS[name]
        times = f'{", ".join(f"{drop:g}" for drop in drops)} of {epochs:g}'
        lines.append(f'| `{name}` | {"; ".join(changed)} | {times} | {parameters} | {variant.source} |')
    return '\n'.join(lines)


def _layer(layer: Conv | Dense) -> str:
    """A layer of a network for CIFAR-10 in a few words, its initial weights and its weight decay."""
    match layer:
        case Conv():
            kind = f'{layer.kernel}x{layer.kernel}' if layer.shared else f'local {layer.kernel}x{layer.kernel}'
            what = ', '.join([f'{kind}-{layer.features}', *map(_operation, layer.then)])
        case Dense():
            what = f'{layer.features or 10}'
    return f'{layer.name}: {what} *({layer.init_std:g}; {DECAY * layer.decay:g})*'


def cifar10() -> str:
    """The author's networks for CIFAR-10."""
    lines = ['| network | crop | layers | norm | parameters | source |', '|---' * 6 + '|']
    for name, variant in CIFAR10.items():
        norms = [_norm(variant, kind) for kind in (ChannelNorm, SpatialNorm)]
        norm = '; '.join(text for text in norms if text != 'none') or 'none'
        layers = '; '.join(map(_layer, variant.layers))
        parameters = sum(row.weights + row.biases for row in get_layer_sizes(variant, num_classes=10))
        crop = POINTS['crop'](variant) + (', mirrored or not' if variant.flips else '')
        lines.append(f'| `{name}` | {crop} | {layers} | {norm} | {parameters:,} | {variant.source} |')
    return '\n'.join(lines)


def deep() -> str:
    """The networks with longer chains, which are nobody's but this project's."""
    lines = ['| network | layers | standard deviation of conv3, of conv4 and on | parameters |', '|---' * 4 + '|']
    for name, variant in DEEP.items():
        stds = ', '.join(f'{conv.init_std:.4f}' for conv in variant.convs[2:4])
        cells = (f'`{name}`', str(len(variant.layers)), stds, POINTS['parameters'](variant))
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def _percent(error: float) -> str:
    """With as many decimals as were published, one at least."""
    percent = round(100 * error, 3)
    return f'{percent:.1f} %' if percent == round(percent, 1) else f'{percent:g} %'


def ledger() -> str:
    """Every published error, with its protocol."""
    lines = ['| run | change | images | protocol | top-1 | top-5 | source |', '|---' * 7 + '|']
    for row in load_references():
        part = f' (`without={row.without}`)' if row.without in ABLATIONS else ''
        protocol = {'centre': 'centre', 'ten_view': 'ten views', 'nine_view': 'nine places'}[row.protocol]
        cells = (row.run, row.change + part, f'{row.dataset} {row.split}', protocol)
        top5 = '' if row.top5_error is None else _percent(row.top5_error)
        cells += (_percent(row.top1_error), top5, row.source)
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


TABLES = {'networks': networks, 'ablations': ablations, 'cifar10': cifar10, 'deep': deep, 'ledger': ledger}


def filled(document: str) -> str:
    """The document with every table between its markers made anew."""
    for name, table in TABLES.items():
        begin, end = f'<!-- {name}: begin -->\n', f'<!-- {name}: end -->'
        head, rest = document.split(begin)
        document = head + begin + table() + '\n' + end + rest.split(end)[1]
    return document


if __name__ == '__main__':
    DOCUMENT.write_text(filled(DOCUMENT.read_text()))
