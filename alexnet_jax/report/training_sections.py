"""Gathers the sections that tell how runs went: errors, curves, the table beside the paper's, speed, facts."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

from alexnet_jax.evaluation.references import select_references
from alexnet_jax.report.charts import Curve, draw_curves, get_uniform_loss
from alexnet_jax.report.figure_collection import FigureCollection
from alexnet_jax.report.page import PROTOCOLS, Section, format_number, format_percent
from alexnet_jax.report.palette import RUN_COLOURS
from alexnet_jax.report.run_folder import RunFolder


def make_result_section(runs: Sequence[RunFolder]) -> Section:
    """Gathers the numbers that people ask for first: of one run as boxes, of several as a table."""
    if len(runs) == 1:
        return Section('result', {}, runs[0])
    datasets = {(run.config.dataset, run.dataset_fingerprint) for run in runs}
    return Section('runs', {'same_images': len(datasets) == 1})


def make_learning_section(runs: Sequence[RunFolder], figures: FigureCollection) -> Section:
    """Draws loss, error and learning rate over training, the runs in one chart."""
    several, same_batch = len(runs) > 1, len({run.config.batch_size for run in runs}) == 1
    xlabel = 'updates' if same_batch else 'thousands of training images seen'

    def make_curve(run: RunFolder, key: str, label: str, *, tests: bool = False, scale: float = 1) -> Curve:
        lines = run.centre if tests else run.train
        xs = [line['step'] * (1 if same_batch else run.config.batch_size / 1000) for line in lines]
        return Curve(label, xs, [scale * line[key] for line in lines], RUN_COLOURS[run.index], strong=tests)

    def make_curves(key: str, scale: float = 1) -> list[Curve]:
        curves = []
        for run in runs:
            curves.append(make_curve(run, key, '' if several else 'training', scale=scale))
            curves.append(make_curve(run, key, run.name if several else 'validation, centre', tests=True, scale=scale))
        return curves

    def draw(name: str, curves: list[Curve], **options: Any) -> None:
        data[name] = figures.add(name, draw_curves(curves, xlabel=xlabel, **options))

    silent = [run.name for run in runs if not run.train]
    data: dict[str, Any] = {'silent': silent, 'charts': len(silent) < len(runs)}
    if data['charts']:
        classes = {len(run.network.classes) for run in runs}
        level = get_uniform_loss(classes.pop()) if len(classes) == 1 else None
        rates = [make_curve(run, 'learning_rate', run.name if several else '') for run in runs]
        draw('loss', make_curves('loss'), title='Loss, nats', level=level)
        draw('error', make_curves('top1_error', scale=100), title='Top-1 error, %')
        draw('rate', rates, title='Learning rate', log=True)
    return Section('learning', data)


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
    lines, curves = [], []
    for run in runs:
        rates = [line['images_per_second'] for line in run.train]
        waits = [line['data_wait'] for line in run.train if 'data_wait' in line]
        values = [
            run.metadata.get('devices', 'not recorded'),
            'x'.join(map(str, run.metadata.get('mesh', {}).values())),
            format_number(run.images_per_second, 1) if run.images_per_second else '',
            format_number(statistics.median(rates), 1) if rates else '',
            format_percent(waits[-1]) if waits else '',
            f'{run.startup["total"]:.1f} s' if run.startup else '',
        ]
        lines.append((run, values))
        label, steps = run.name if len(runs) > 1 else '', [line['step'] for line in run.train]
        curves.append(Curve(label, steps, rates, RUN_COLOURS[run.index], strong=False))
    data: dict[str, Any] = {'lines': lines, 'chart': None}
    if any(curve.ys for curve in curves):
        data['chart'] = figures.add('speed', draw_curves(curves, title='Images a second', xlabel='updates', half=True))
    starts = {run.name: run.startup['parts'] for run in runs if run.startup}
    parts = dict.fromkeys(part for seconds in starts.values() for part in seconds)
    data['started'] = list(starts)
    data['parts'] = [[part, *(f'{seconds.get(part, 0):.1f}' for seconds in starts.values())] for part in parts]
    return Section('speed', data)


def make_facts_section(runs: Sequence[RunFolder]) -> Section:
    """Gathers what one needs to do a run again."""
    settings = [json.dumps(run.network.about['config'], indent=2) for run in runs]
    return Section('facts', {'settings': settings})
