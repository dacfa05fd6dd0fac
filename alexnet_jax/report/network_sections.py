"""Gathers the sections that look inside a network: its filters by tower, its maps of an image, its mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from alexnet_jax.evaluation.evaluator import Predictions
from alexnet_jax.evaluation.measures import count_confusions, measure_classes, rank_right_classes
from alexnet_jax.model.colour import COLOURLESS_NOISE, split_towers
from alexnet_jax.report.charts import Curve, draw_colour_shares, draw_confusion_matrix, draw_curves
from alexnet_jax.report.drawing import Photo, Pixels
from alexnet_jax.report.figure_collection import FigureCollection
from alexnet_jax.report.filters import measure_initial_share, measure_specialisation, render_filters, tile_images
from alexnet_jax.report.maps import compute_maps, render_maps
from alexnet_jax.report.page import PROTOCOLS, Section
from alexnet_jax.report.palette import TOWER_COLOURS
from alexnet_jax.report.run_folder import RunFolder

MAX_CLASSES = 20  # of a confusion matrix that can be read
_COLUMNS = 16  # of filters: the paper's 96 are six rows, three of each tower
_MAPS = 12  # of each layer and tower
_MISTAKES = 8
_NOISY = 0.1  # of the energy, above which filters look like their random start


def make_filters_section(run: RunFolder, figures: FigureCollection) -> Section:
    """Gathers the first layer as in the paper's Figure 3, with the specialisation and its history."""

    def add_sheets(kernel: np.ndarray, name: str) -> list[Any]:
        sheets = []
        for tower, filters in enumerate(split_towers(kernel) if run.has_towers else [kernel]):
            suffix, description = f'_tower{tower}', f'First-layer filters of tower {tower}'
            if not run.has_towers:
                suffix, description = '', 'The first layer’s filters'
            sheet = tile_images(render_filters(filters), max_columns=_COLUMNS)
            sheets.append(figures.add(f'{run.name}_{name}{suffix}', Pixels(sheet, description)))
        return sheets

    data: dict[str, Any] = {'sheets': add_sheets(run.kernel, 'filters')}
    if run.has_towers:
        stats = measure_specialisation(run.kernel)
        curves = []
        for tower, colour in enumerate(TOWER_COLOURS):
            means = [colours[f'colour_tower{tower}'] for colours in run.colour_history.values()]
            curves.append(Curve(f'tower {tower}', list(run.colour_history), means, colour))
        history = draw_curves(
            curves,
            title='Mean chromatic share',
            xlabel='updates',
            description='Mean chromatic share of each tower’s first-layer filters over training',
            level=(COLOURLESS_NOISE, 'random weights'),
            limits=(None, None),
            half=True,
        )
        initial_share = measure_initial_share(run.kernel, run.initial_kernel)
        data |= {
            'stats': stats,
            'shares': figures.add(f'{run.name}_colour', draw_colour_shares(stats)),
            'history': figures.add(f'{run.name}_colour_course', history),
            'initial_share': initial_share,
            'noisy': initial_share > _NOISY,
            'initial_sheets': add_sheets(run.initial_kernel, 'start'),
        }
    return Section('filters', data, run)


def make_maps_section(run: RunFolder, figures: FigureCollection, image: np.ndarray, description: str) -> Section:
    """Gathers the maps of each convolution for a record, uint8 (h, w, 3); `description` says which image it is."""
    layers = []
    for layer in compute_maps(run.network, image):
        sheets = []
        for tower in range(layer.towers):
            maps = layer.get_strongest(tower, count=_MAPS)
            images = render_maps(maps, tower=tower if layer.towers > 1 else None)
            sheet = Pixels(tile_images(images, max_columns=_MAPS // 2), f'Maps of {layer.name}, tower {tower}')
            sheets.append(figures.add(f'{run.name}_maps_{layer.name}_tower{tower}', sheet))
        height, width, channels = layer.maps.shape
        layers.append((f'{layer.name}: {channels} maps of {height} x {width}', sheets))
    data = {'photo': Photo(image, description, side=160), 'layers': layers}
    return Section('maps', data, run)


def make_mistakes_section(
    run: RunFolder,
    figures: FigureCollection,
    predictions: Predictions,
    *,
    protocol: str,
    read_image: Callable[[int], np.ndarray],
) -> Section:
    """Gathers what each class is taken for, and the mistakes with the largest probabilities.

    Args:
      run: the run.
      figures: takes the confusion matrix.
      predictions: of its validation split.
      protocol: under which, 'centre' or 'ten_view'.
      read_image: gives an image of that split, uint8 (h, w, 3).
    """
    names, matrix = run.network.classes, count_confusions(predictions)
    shown = np.arange(len(names))
    if len(names) > MAX_CLASSES:
        wrong = matrix.sum(axis=1) - np.diag(matrix)
        shown = np.sort(np.argsort(-wrong, kind='stable')[:MAX_CLASSES])
    chart = draw_confusion_matrix(matrix[np.ix_(shown, shown)], [names[i] for i in shown])
    rows = [row for row in measure_classes(predictions, names) if row.images]
    answers = predictions.probabilities.argmax(axis=1)
    wrong_probabilities = np.where(rank_right_classes(predictions) > 0, predictions.probabilities.max(axis=1), -1.0)
    surest = []
    for index in map(int, np.argsort(-wrong_probabilities, kind='stable')[:_MISTAKES]):
        right, answer = names[predictions.labels[index]], names[answers[index]]
        # Where several classes share the largest probability the image is an error whose answer may be right.
        if wrong_probabilities[index] >= 0 and answers[index] != predictions.labels[index]:
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
