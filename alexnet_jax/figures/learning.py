"""The parts of a report that say how runs went: their facts, curves, speed, and the table beside the paper's."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

from alexnet_jax.evaluation.references import references
from alexnet_jax.figures.album import Album
from alexnet_jax.figures.charts import Curve, curves, guessing
from alexnet_jax.figures.page import Html, cards, element, figure, grid, paragraph, section, table
from alexnet_jax.figures.palette import RUN_COLOURS
from alexnet_jax.figures.runs import Run
from alexnet_jax.model.variants import layer_sizes
from alexnet_jax.training.logbook import clock

_PROTOCOLS = {'ten_view': 'ten-view', 'centre': 'centre'}


def percent(fraction: float | None) -> str:
    """0.2345 -> '23.5 %'."""
    return 'not measured' if fraction is None else f'{100 * fraction:.1f}\N{NO-BREAK SPACE}%'


def error_spread(fraction: float, images: int) -> str:
    """'± 2.3', the standard error in % of an error that was found on so many images, as if drawn at random."""
    return f'± {100 * math.sqrt(fraction * (1 - fraction) / images):.1f}'


def network_words(run: Run) -> str:
    """'released, width 0.5, without norm'."""
    name = run.network.name
    return (
        name.variant
        + (f', width {name.width:g}' if name.width != 1 else '')
        + ''.join(f', without {part}' for part in name.without)
    )


def test_of(run: Run, protocol: str) -> dict[str, Any] | None:
    """The run's last test under a protocol: of its result, or of the log where it has not come to its end."""
    if run.result:
        return run.result.get(protocol)
    return run.centre[-1] if protocol == 'centre' and run.centre else None


def seconds_of(run: Run) -> float | None:
    """About how long its steps took, tests and saves apart: from its log, which a resumed run continues."""
    lines, before, total = run.train, 0, 0.0
    for line in lines:
        total += (line['step'] - before) * run.config.batch_size / line['images_per_second']
        before = line['step']
    return total if lines else None


def speed_of(run: Run) -> float | None:
    """Images a second, of all its steps."""
    seconds = seconds_of(run)
    return run.train[-1]['step'] * run.config.batch_size / seconds if seconds else None


def swatch(run_index: int) -> Html:
    """A spot of a run's colour."""
    return element('span', class_='swatch', style=f'background: var(--run{run_index})')


def headline(run: Run) -> Html:
    """The numbers that people ask for first."""
    values: list[tuple[str, object, str]] = []
    for protocol, name in _PROTOCOLS.items():
        if test := test_of(run, protocol):
            spread = error_spread(test['top1_error'], test['examples'])
            remark = f'{spread}, standard error of {test["examples"]:,} images; top-5 {percent(test["top5_error"])}'
            remark += f'; step {test["step"]:,}' if 'step' in test else ''  # of a run that goes on
            values.append((percent(test['top1_error']), f'top-1 error, {name}', remark))
    seconds, speed = seconds_of(run), speed_of(run)
    batch = f'of {run.config.batch_size} images'
    values.append((f'{run.step:,}', 'updates', batch if run.result else f'{batch}; the run is not finished'))
    if seconds and speed:
        values.append((clock(seconds), 'of training', f'{speed:,.0f} images a second'))
    sizes = layer_sizes(run.network.variant, num_classes=len(run.network.classes))
    parameters = sum(size.weights + size.biases for size in sizes)
    remark = f'{sum(size.macs for size in sizes) / 1e6:,.0f} million multiply-accumulates an image'
    values.append((f'{parameters / 1e6:,.1f} M', 'parameters', remark))
    return cards(values)


def comparison(runs: Sequence[Run]) -> Html:
    """A row for each run."""
    rows = []
    for index, run in enumerate(runs):
        tests = [test_of(run, protocol) for protocol in _PROTOCOLS]
        speed = speed_of(run)
        rows.append(
            [
                element('span', swatch(index), run.name),
                network_words(run),
                run.config.dataset,
                f'{run.step:,} x {run.config.batch_size}' + ('' if run.result else ', not finished'),
                *(percent(test['top1_error'] if test else None) for test in tests),
                f'{speed:,.0f}' if speed else '',
            ]
        )
    head = ['run', 'network', 'dataset', 'updates x images', 'ten-view error', 'centre error', 'images/s']
    datasets = {(run.config.dataset, run.circumstances.get('identity', {}).get('dataset_fingerprint')) for run in runs}
    inside = [paragraph('Top-1 errors on each run’s own validation images.'), table(head, rows)]
    if len(datasets) > 1:
        inside.append(paragraph('The runs were not tested on the same images: their errors cannot be compared.'))
    return section('runs', 'The runs', *inside)


def learning(runs: Sequence[Run], album: Album) -> Html:
    """Loss, error and learning rate over training, the runs in one chart."""
    same = len({run.config.batch_size for run in runs}) == 1
    xlabel = 'updates' if same else 'thousands of training images seen'

    def xs(run: Run, lines: list[dict[str, Any]]) -> list[float]:
        return [line['step'] * (1 if same else run.config.batch_size / 1000) for line in lines]

    def lines_of(key: str, scale: float = 1) -> list[Curve]:
        found = []
        for index, run in enumerate(runs):
            colour, several = RUN_COLOURS[index], len(runs) > 1
            for lines, name, tested in ((run.train, 'training', False), (run.centre, 'validation, centre', True)):
                label = ('' if not tested else run.name) if several else name
                found.append(Curve(label, xs(run, lines), [scale * line[key] for line in lines], colour, tested))
        return found

    classes = {len(run.network.classes) for run in runs}
    rates = [
        Curve(
            run.name if len(runs) > 1 else '',
            xs(run, run.train),
            [line['learning_rate'] for line in run.train],
            RUN_COLOURS[index],
            tested=False,
        )
        for index, run in enumerate(runs)
    ]
    level = guessing(classes.pop()) if len(classes) == 1 else None
    charts = {
        'loss': curves(lines_of('loss'), title='Loss, nats', xlabel=xlabel, says='Loss over training', level=level),
        'error': curves(
            lines_of('top1_error', 100), title='Top-1 error, %', xlabel=xlabel, says='Top-1 error over training'
        ),
        'rate': curves(rates, title='Learning rate', xlabel=xlabel, says='Learning rate over training', log=True),
    }
    captions = {
        'loss': 'The mean of −log p(right class). One that knows nothing sits on the dotted line.',
        'error': 'Training images are cropped, mirrored and recoloured at random, and half of the hidden units are '
        'dropped: so training can look worse than validation.',
        'rate': 'Divided by ten by plan, or when the validation error stops to improve (section 5 of the paper).',
    }
    note = '' if len(runs) == 1 else ' Strong lines with points are validation, thin ones training.'
    inside = [paragraph(f'Each point of training is the mean over the steps since the one before it.{note}')]
    if silent := [run.name for run in runs if not run.train]:
        inside = [paragraph(f'No log of training, and so no curves: {", ".join(silent)}.')]
    if len(silent) < len(runs):
        inside.append(grid(*(figure(album.add(name, chart), captions[name]) for name, chart in charts.items())))
    return section('learning', 'How it learned' if len(runs) == 1 else 'How they learned', *inside)


def beside_the_paper(runs: Sequence[Run]) -> Html:
    """The runs' errors and the published ones, each protocol by itself."""
    parts: list[object] = []
    sets = sorted({run.config.dataset for run in runs})
    datasets = ' and '.join(sets)
    if sets == ['imagenet2012']:
        lead = 'Compare only within a table, and mind the last column: another split is another test.'
    else:
        lead = (
            f'The published errors are of ImageNet’s 1,000 classes. Those of {datasets} stand beside them for the '
            f'form, not to be compared: other images and other classes are another task.'
        )
    parts.append(
        paragraph(
            lead + ' Errors of different protocols are never put into one table. Centre means one crop of 224 x 224 '
            'from the middle; ten-view is the paper’s way, the mean over five crops and their mirror images, which '
            'takes about 2 points off ImageNet’s top-1 error. “Released 145” is the network in the authors’ own '
            'code whose log has the paper’s numbers.'
        )
    )
    for protocol, name in _PROTOCOLS.items():
        rows: list[list[object]] = []
        for index, run in enumerate(runs):
            if test := test_of(run, protocol):
                words = element(
                    'span', *([swatch(index)] if len(runs) > 1 else []), f'{run.name}: ', network_words(run)
                )
                tested = f'{run.config.dataset}, validation, {test["examples"]:,} images'
                rows.append([words, tested, percent(test['top1_error']), percent(test['top5_error']), 'this report'])
        own = list(range(len(rows)))
        for row in references(protocol, networks=[run.network.variant for run in runs]):
            what = row.run + (f': {row.change}' if row.change else '')
            comparable = any(not row.unlike(run.config.dataset, 'validation') for run in runs)
            tested = f'{row.dataset}, {row.split}' + ('' if comparable else ' (other images)')
            errors = ['' if error is None else percent(error) for error in (row.top1_error, row.top5_error)]
            rows.append([what, tested, *errors, row.source])
        parts.append(element('h3', f'Protocol: {name}'))
        if not own:
            parts.append(paragraph('Not measured. The ten-view test comes at a run’s end only.'))
        parts.append(table(['network', 'tested on', 'top-1 error', 'top-5 error', 'source'], rows, strong=own))
    return section('paper', 'Beside the paper', *parts)


def speed(runs: Sequence[Run], album: Album) -> Html:
    """What a step and a start took."""
    rows, charts = [], []
    for index, run in enumerate(runs):
        rates = [line['images_per_second'] for line in run.train]
        waits = [line['data_wait'] for line in run.train if 'data_wait' in line]
        whole = speed_of(run)
        rows.append(
            [
                element('span', *([swatch(index)] if len(runs) > 1 else []), run.name),
                run.circumstances.get('devices', 'not recorded'),
                'x'.join(str(n) for n in run.circumstances.get('mesh', {}).values()),
                f'{whole:,.1f}' if whole else '',
                f'{statistics.median(rates):,.1f}' if rates else '',
                percent(waits[-1]) if waits else '',
                f'{run.startup["total"]:.1f} s' if run.startup else '',
            ]
        )
        steps = [line['step'] for line in run.train]
        charts.append(Curve(run.name if len(runs) > 1 else '', steps, rates, RUN_COLOURS[index], tested=False))
    head = ['run', 'devices', 'mesh', 'images/s', 'median', 'waiting for data', 'first step after']
    inside: list[object] = [table(head, rows)]
    chart = curves(charts, title='Images a second', xlabel='updates', says='Images a second over training', half=True)
    started = [run for run in runs if run.startup]
    parts = dict.fromkeys(part for run in started for part in (run.startup or {})['parts'])
    names = [run.name for run in started] if len(runs) > 1 else ['']
    starts = [[part, *(f'{(run.startup or {})["parts"].get(part, 0):.1f}' for run in started)] for part in parts]
    caption = 'Steps alone: tests, saves and compilation are left out.'
    beside = [table(['start, in seconds', *names], starts)] if starts else []
    if any(line.ys for line in charts):
        beside = [figure(album.add('speed', chart), caption), *beside]
    inside.append(grid(*beside))
    return section('speed', 'Speed', *inside)


def facts(runs: Sequence[Run]) -> Html:
    """What one needs to do a run again."""
    parts: list[object] = []
    for run in runs:
        of = run.circumstances
        rows = [
            ['network', f'{network_words(run)} ({run.network.variant.source})'],
            ['dataset', f'{run.config.dataset}, {len(run.network.classes)} classes'],
            ['dataset fingerprint', element('code', of.get('identity', {}).get('dataset_fingerprint', 'not recorded'))],
            ['checkpoint', f'step {run.step:,}'],
            ['params_sha256', element('code', run.network.about['params_sha256'])],
            ['commit', element('code', of.get('commit') or 'not recorded')],
            ['devices', of.get('devices', 'not recorded')],
            ['versions', ', '.join(f'{name} {version}' for name, version in of.get('versions', {}).items())],
            ['seed', element('span', str(run.config.seed))],
        ]
        if len(runs) > 1:
            parts.append(element('h3', run.name))
        parts.append(table(['what', 'value'], rows))
        settings = json.dumps(run.network.about['config'], indent=2)
        parts.append(element('details', element('summary', 'All settings'), element('pre', settings)))
    return section('facts', 'To do it again', *parts)
