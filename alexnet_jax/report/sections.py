"""Gathers the sections of a report: those of each run's network, and those that tell how the runs went."""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.communication.audit import trace_step
from alexnet_jax.communication.messages import Message, traced_schedule
from alexnet_jax.data.dataset import Source
from alexnet_jax.evaluation.evaluator import Predictions
from alexnet_jax.evaluation.features import find_stage
from alexnet_jax.evaluation.measures import count_confusions, measure_classes
from alexnet_jax.evaluation.references import select_references
from alexnet_jax.evaluation.strongest import draw_strongest, find_strongest
from alexnet_jax.model.colour import COLOURLESS_NOISE, split_towers
from alexnet_jax.report import charts, pictures
from alexnet_jax.report.drawing import RUN_COLOURS, TOWER_COLOURS, FigureCollection, Photo, Pixels
from alexnet_jax.report.page import PROTOCOLS, Section, format_megabytes
from alexnet_jax.report.run_folder import RunFolder
from alexnet_jax.sharding.mesh import MODEL, make_mesh
from alexnet_jax.training.build import build_run
from alexnet_jax.training.config import ONE_WEIRD_TRICK

MAX_CLASSES = 20  # of a confusion matrix that can be read
_COLUMNS = 16  # of filters: the paper's 96 are six rows, three of each tower
_MAPS = 12  # of each layer and tower
_MISTAKES = 8
_PATCHES = 9  # of each channel: three rows of three
BATCH = 64  # images at once; changes no number that is shown
_NOISY = 0.1  # of the energy, above which filters look like their random start


def make_filters_section(run: RunFolder, figures: FigureCollection) -> Section:
    """Gathers the first layer as in the paper's Figure 3, with the specialisation and its history."""

    def add_sheet(kernel: np.ndarray, name: str, description: str) -> Any:
        sheet = pictures.tile_images(pictures.render_filters(kernel), max_columns=_COLUMNS)
        return figures.add(f'{run.name}_{name}', Pixels(sheet, description))

    def add_sheets(kernel: np.ndarray, name: str) -> list[Any]:
        towers = enumerate(split_towers(kernel))
        return [add_sheet(part, f'{name}_tower{i}', f'First-layer filters of tower {i}') for i, part in towers]

    if not run.has_towers:
        return Section('filters', {'sheets': [add_sheet(run.kernel, 'filters', 'The first layer’s filters')]}, run)
    stats, curves = pictures.measure_specialisation(run.kernel), []
    for tower, colour in enumerate(TOWER_COLOURS):
        means = [colours[f'colour_tower{tower}'] for colours in run.colour_history.values()]
        curves.append(charts.Curve(f'tower {tower}', list(run.colour_history), means, colour))
    history = charts.draw_curves(
        curves,
        title='Mean chromatic share',
        xlabel='updates',
        description='Mean chromatic share of each tower’s first-layer filters over training',
        level=(COLOURLESS_NOISE, 'random weights'),
        limits=(None, None),
        half=True,
    )
    initial_share = pictures.measure_initial_share(run.kernel, run.initial_kernel)
    data = {
        'sheets': add_sheets(run.kernel, 'filters'),
        'stats': stats,
        'shares': figures.add(f'{run.name}_colour', charts.draw_colour_shares(stats)),
        'history': figures.add(f'{run.name}_colour_course', history),
        'initial_share': initial_share,
        'noisy': initial_share > _NOISY,
        'initial_sheets': add_sheets(run.initial_kernel, 'start'),
    }
    return Section('filters', data, run)


def make_maps_section(run: RunFolder, figures: FigureCollection, image: np.ndarray, description: str) -> Section:
    """Gathers the maps of each convolution for a record, uint8 (h, w, 3), and what counts for the network's answer.

    `description` says which image it is.
    """
    layers = []
    for layer, maps in pictures.compute_maps(run.network, image).items():
        sheets = []
        for tower, own in enumerate(np.split(maps, run.network.variant.towers, axis=-1)):
            strongest = pictures.select_strongest_maps(own, count=_MAPS)
            images = pictures.render_maps(strongest, tower=tower if run.has_towers else None)
            sheet = Pixels(pictures.tile_images(images, max_columns=_MAPS // 2), f'Maps of {layer}, tower {tower}')
            sheets.append(figures.add(f'{run.name}_maps_{layer}_tower{tower}', sheet))
        height, width, channels = maps.shape
        layers.append((f'{layer}: {channels} maps of {height} x {width}', sheets))
    label, painted = pictures.explain_image(run.network, image)
    answer = run.network.classes[label]
    explained = {method: Photo(one, f'{method} for {answer}', side=150) for method, one in painted.items()}
    data = {'photo': Photo(image, description, side=160), 'layers': layers, 'answer': answer, 'explained': explained}
    return Section('maps', data, run)


def make_patches_section(run: RunFolder, figures: FigureCollection, records: Source, mesh: Mesh) -> Section:
    """Draws the patches of `records` that excite channels of the second and the last convolution most."""
    variant, layers = run.network.variant, []
    for conv in (variant.convs[1], variant.convs[-1]):
        stage = find_stage(variant, conv.name)
        found = find_strongest(run.network, mesh, records, stage=stage, count=_PATCHES, batch_size=BATCH)
        sheets = []
        for tower, own in enumerate(np.split(np.arange(len(found.values)), variant.towers)):
            channels = [channel for channel in own.tolist() if found.values[channel].any()][:_MAPS]
            drawn = draw_strongest(found, records, record_size=variant.record_size, groups=[channels])
            sheet = Pixels(np.asarray(drawn.convert('RGBA')), f'Patches for {conv.name}, tower {tower}')
            sheets.append(figures.add(f'{run.name}_patches_{conv.name}_tower{tower}', sheet))
        layers.append((conv.name, sheets))
    return Section('patches', {'layers': layers, 'shown': _MAPS}, run)


def make_mistakes_section(
    run: RunFolder,
    figures: FigureCollection,
    predictions: Predictions,
    *,
    protocol: str,
    read_image: Callable[[int], np.ndarray],
) -> Section:
    """Gathers what each class is taken for, and the mistakes with the largest probabilities.

    `predictions` are of the run's validation split under `protocol`; `read_image` returns an image of that split by
    its index, uint8 (h, w, 3).
    """
    names, matrix = run.network.classes, count_confusions(predictions)
    shown = np.arange(len(names))
    if len(names) > MAX_CLASSES:
        wrong = matrix.sum(axis=1) - np.diag(matrix)
        shown = np.sort(np.argsort(-wrong, kind='stable')[:MAX_CLASSES])
    chart = charts.draw_confusion_matrix(matrix[np.ix_(shown, shown)], [names[i] for i in shown])
    rows = [row for row in measure_classes(predictions, names) if row.images]
    answers = predictions.probabilities.argmax(axis=1)
    wrong_probabilities = np.where(answers != predictions.labels, predictions.probabilities.max(axis=1), -1.0)
    surest = []
    for index in map(int, np.argsort(-wrong_probabilities, kind='stable')[:_MISTAKES]):
        right, answer = names[predictions.labels[index]], names[answers[index]]
        if wrong_probabilities[index] >= 0:
            photo = Photo(read_image(index), f'{right}, called {answer}', side=150)
            surest.append((photo, answer, right, wrong_probabilities[index]))
    data = {
        'images': len(predictions.labels),
        'protocol': PROTOCOLS[protocol],
        'max_classes': MAX_CLASSES,
        'matrix': figures.add(f'{run.name}_confusion', chart),
        'worst': sorted(rows, key=lambda row: -(row.top1_error or 0))[:MAX_CLASSES],
        'surest': surest,
    }
    return Section('mistakes', data, run)


def make_exchanges_section(run: RunFolder, figures: FigureCollection) -> Section:
    """Gathers what devices send in a step on the run's own mesh: the towers with the bytes between them, every message.

    The messages are those of the program traced for CPUs: on other devices it sends the same.
    """
    config = run.config
    devices = jax.devices('cpu')[: math.prod(config.mesh)]
    mesh = make_mesh(*config.mesh, one_weird_trick=config.parallelism == ONE_WEIRD_TRICK, devices=devices)
    built = build_run(config, num_classes=len(run.network.classes), examples=1, mesh=mesh)  # no data is read
    messages = traced_schedule(trace_step(built).jaxpr, mesh)
    forward = [m for m in messages if m.axis == mesh.axis_names[1] and m.direction == 'forward']
    towers = None
    if run.has_towers and MODEL not in mesh.axis_names:
        labels = {message.layer: format_megabytes(message.bytes) for message in forward}
        chart = charts.draw_towers([(size.name, size.output[-1]) for size in run.layer_sizes], labels)
        towers = figures.add(f'{run.name}_towers', chart)
    data = {
        'towers': towers,
        'crossing': bool(forward),
        'messages': messages,
        'lines': _format_messages(messages),
        'mesh': ' x '.join(f'{size} {axis}' for axis, size in mesh.shape.items()),
    }
    return Section('exchanges', data, run)


def _format_messages(messages: Sequence[Message]) -> list[list[str]]:
    """Formats a line for each message; those that average gradients over one axis have one together, at the end."""
    lines: list[list[str]] = []
    sums: dict[str, list[Message]] = {}
    for m in messages:
        if m.op == 'all-reduce' and m.direction == 'backward':
            sums.setdefault(m.axis, []).append(m)
        else:
            shape = f'{m.dtype} [{", ".join(map(str, m.shape))}]'
            lines.append([m.layer or 'all layers', m.direction, m.op, m.axis, shape, f'{m.bytes:,}'])
    for axis, own in sums.items():
        arrays, count = f'{own[0].dtype}, {len(own)} arrays', sum(m.bytes for m in own)
        lines.append(['all layers', 'backward', 'all-reduce', axis, arrays, f'{count:,}'])
    return lines


def make_result_section(runs: Sequence[RunFolder]) -> Section:
    """Gathers the numbers that people ask for first: of one run as boxes, of several as a table."""
    if len(runs) == 1:
        return Section('result', {}, runs[0])
    datasets = {run.images_fingerprint or run.config.dataset for run in runs}
    return Section('runs', {'same_images': len(datasets) == 1})


def make_learning_section(runs: Sequence[RunFolder], figures: FigureCollection) -> Section:
    """Draws loss, error and learning rate over training, the runs in one chart."""
    scales = {'loss': 1, 'top1_error': 100, 'learning_rate': 1}
    several, same_batch = len(runs) > 1, len({run.config.batch_size for run in runs}) == 1
    xlabel = 'updates' if same_batch else 'thousands of training images seen'

    def make_curve(run: RunFolder, lines: list[dict[str, Any]], key: str, label: str, **style: bool) -> charts.Curve:
        xs, scale = [line['step'] * (1 if same_batch else run.config.batch_size / 1000) for line in lines], scales[key]
        return charts.Curve(label, xs, [scale * line[key] for line in lines], RUN_COLOURS[run.index], **style)

    def make_curves(key: str) -> list[charts.Curve]:
        curves = []
        for run in runs:
            curves.append(make_curve(run, run.train, key, '' if several else 'training', strong=False))
            curves.append(make_curve(run, run.centre, key, run.name if several else 'validation, centre'))
            if run.centre_training:
                label = '' if several else 'training images, centre'
                curves.append(make_curve(run, run.centre_training, key, label, dashed=True))
        return curves

    def draw(name: str, curves: list[charts.Curve], **options: Any) -> None:
        data[name] = figures.add(name, charts.draw_curves(curves, xlabel=xlabel, **options))

    silent = [run.name for run in runs if not run.train]
    gaps = [(run, run.centre_training[-1]) for run in runs if run.centre_training]
    data: dict[str, Any] = {'silent': silent, 'charts': len(silent) < len(runs), 'gaps': gaps}
    if data['charts']:
        classes = {len(run.network.classes) for run in runs}
        level = charts.get_uniform_loss(classes.pop()) if len(classes) == 1 else None
        rates = [make_curve(run, run.train, 'learning_rate', run.name if several else '', strong=False) for run in runs]
        draw('loss', make_curves('loss'), title='Loss, nats', level=level)
        draw('error', make_curves('top1_error'), title='Top-1 error, %')
        draw('rate', rates, title='Learning rate', log=True)
    return Section('learning', data)


def make_signals_section(run: RunFolder, figures: FigureCollection) -> Section:
    """Draws what looks into single steps saw, layer by layer: gradients, updates and units that are lost."""
    steps = [line['step'] for line in run.probes]
    titles = {
        'gradient': ('Norm of the gradient', True),
        'update': ('Update, of the weights', True),
        'dead': ('Dead ReLUs', False),
        'saturated': ('Saturated units', False),
    }
    sheets = []
    for what, (title, log) in titles.items():
        rows = {
            layer.name: [line[f'{layer.name}/{what}'] for line in run.probes]
            for layer in run.network.variant.layers
            if f'{layer.name}/{what}' in run.probes[0]
        }
        if rows:
            chart = charts.draw_layers(rows, steps, title=title, log=log, description=f'{title} by layer and step')
            sheets.append((what, figures.add(f'{run.name}_{what}', chart)))
    return Section('signals', {'sheets': sheets, 'looks': len(steps)}, run)


def make_paper_section(runs: Sequence[RunFolder]) -> Section:
    """Gathers the runs' errors and the published ones, each protocol by itself."""
    tables = []
    for protocol, name in PROTOCOLS.items():
        references = [
            (row, any(not row.unlike(run.config.dataset, 'validation') for run in runs))
            for row in select_references(protocol, networks=[run.network.variant for run in runs])
        ]
        tables.append((name, [(run, test) for run in runs if (test := run.get_test(protocol))], references))
    data = {'datasets': sorted({run.config.dataset for run in runs}), 'tables': tables}
    return Section('paper', data)


def make_speed_section(runs: Sequence[RunFolder], figures: FigureCollection) -> Section:
    """Gathers what a step and a start took."""
    rates = [[line['images_per_second'] for line in run.train] for run in runs]
    starts = {run.name: run.startup['parts'] for run in runs if run.startup}
    parts = dict.fromkeys(part for seconds in starts.values() for part in seconds)
    data: dict[str, Any] = {
        'medians': [statistics.median(own) if own else None for own in rates],
        'chart': None,
        'started': list(starts),
        'parts': [[part, *(f'{seconds.get(part, 0):.1f}' for seconds in starts.values())] for part in parts],
    }
    if any(rates):
        curves = []
        for run, own in zip(runs, rates, strict=True):
            label, steps = run.name if len(runs) > 1 else '', [line['step'] for line in run.train]
            curves.append(charts.Curve(label, steps, own, RUN_COLOURS[run.index], strong=False))
        chart = charts.draw_curves(curves, title='Images a second', xlabel='updates', half=True)
        data['chart'] = figures.add('speed', chart)
    return Section('speed', data)


def make_facts_section(runs: Sequence[RunFolder]) -> Section:
    """Gathers what one needs to do a run again."""
    settings = [json.dumps(run.network.about['config'], indent=2) for run in runs]
    return Section('facts', {'settings': settings})
