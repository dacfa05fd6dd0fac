"""The parts of a report that look inside a network: its filters by tower, its maps of an image, its mistakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from alexnet_jax.evaluation.measures import by_class, confusion, right_ranks
from alexnet_jax.evaluation.predictions import Predictions
from alexnet_jax.figures.album import Album
from alexnet_jax.figures.charts import Curve, colour_strip, confusion_chart, curves
from alexnet_jax.figures.drawing import Chart, Pixels, photo_html
from alexnet_jax.figures.filters import Specialisation, filter_pictures, memory_of_start, sheet, specialisation
from alexnet_jax.figures.learning import percent
from alexnet_jax.figures.maps import LayerMaps, map_pictures
from alexnet_jax.figures.page import Html, element, figure, grid, joined, paragraph, table
from alexnet_jax.figures.palette import TOWER_COLOURS
from alexnet_jax.figures.runs import Run
from alexnet_jax.model.filters import COLOURLESS_NOISE, of_towers

MOST_CLASSES = 20  # of a confusion matrix that can be read
_COLUMNS = 16  # of filters: the paper's 96 are six rows, three of each tower
_MAPS = 12  # of each layer and tower
_MISTAKES = 8
_NOISY = 0.1  # of the energy, above which filters look like it


def tower_title(tower: int) -> Html:
    """'tower 0' in its colour."""
    return element('b', f'tower {tower}', class_=f't{tower}')


def filters(run: Run, album: Album) -> list[Html]:
    """The first layer as in the paper's Figure 3, with the statistic and its course."""
    if not run.has_towers:
        picture = Pixels(sheet(filter_pictures(run.kernel), most_columns=_COLUMNS), 'The first layer’s filters')
        caption = 'The filters of the first layer. This network has no towers to specialise.'
        return [element('div', figure(album.add(f'{run.name}_filters', picture), caption), class_='sheets')]
    found = specialisation(run.kernel)
    height, width, _, count = run.kernel.shape
    return [
        paragraph(
            f'The {count} filters of the first layer, {height} x {width} pixels each, in the order in which the layer '
            f'has them: tower 0’s {count // 2} above, tower 1’s {count // 2} below, as in the paper’s Figure 3. There '
            'one GPU’s filters are edges and gratings, “largely color-agnostic”, and the other’s blobs of colour, '
            '“largely color-specific”. That, says section 6.1, “occurs during every run and is independent of any '
            'particular random weight initialization (modulo a renumbering of the GPUs)”. Nothing asks for it: the '
            'towers only do not see each other’s maps before the third layer.'
        ),
        element('div', _sheets(run.kernel, f'{run.name}_filters', album), class_='sheets'),
        paragraph(element('small', 'Middle grey is a weight of 0; each filter is scaled to its own largest weight.')),
        element('h3', 'How far have the towers specialised?'),
        paragraph(
            'Split each filter’s weights into a part along grey, where red, green and blue agree, and the rest, which '
            'answers to colour alone. The share of the energy (the sum of squares) in that rest is 0 for a filter that '
            'sees only brightness and 1 for one that sees only colour. Random weights have two thirds: two of three '
            'directions are chromatic.'
        ),
        paragraph(_verdict(found)),
        grid(
            figure(
                album.add(f'{run.name}_colour', colour_strip(found)), 'A point is a filter, a bar its tower’s mean.'
            ),
            figure(
                album.add(f'{run.name}_colour_course', _course(run)),
                'The towers’ means over training. Both begin at the noise of the initial weights.',
            ),
        ),
        _before(run, album),
    ]


def _sheets(kernel: np.ndarray, name: str, album: Album) -> Html:
    """The filters of both towers, one above the other."""
    parts = []
    for tower, own in enumerate(of_towers(kernel)):
        pixels = Pixels(sheet(filter_pictures(own), most_columns=_COLUMNS), f'First-layer filters of tower {tower}')
        parts.append(
            element(
                'div', tower_title(tower), Html(album.add(f'{name}_tower{tower}', pixels)), class_=f'tower tower{tower}'
            )
        )
    return joined(parts)


def _before(run: Run, album: Album) -> Html:
    """The same filters before training, and how much of that is left."""
    left = memory_of_start(run.kernel, run.start)
    words = (
        f'After {run.step:,} updates {percent(left)} of a filter’s energy, on average, is still that of its random '
        'beginning (the squared cosine between the two). '
    )
    if left > _NOISY:
        words += (
            'So part of the noise above was there from the start: the paper’s 90 passes over ImageNet washed it out.'
        )
    sheets = element('div', _sheets(run.start, f'{run.name}_start', album), class_='before')
    details = element('details', element('summary', 'The same filters before training'), sheets)
    return joined([paragraph(words), details])


def _verdict(found: Specialisation) -> Html:
    colour = int(found.means[1] > found.means[0])
    chance = (
        f'A random assignment of the same filters to the towers gives such a difference with probability '
        f'p {"&lt; 0.001" if found.p < 0.001 else f"= {found.p:.3f}"} (permutation test). '
    )
    verdict: tuple[str, ...]
    if found.p < 0.01:
        verdict = ('Tower ', str(colour), ' is the one for colour.')
    elif found.p < 0.05:
        verdict = ('That hints at a specialisation, and is no proof of one.',)
    else:
        verdict = ('So these towers cannot be told apart: they have not specialised, or not yet.',)
    means = [element('b', f'tower {tower}: {found.means[tower]:.3f}', class_=f't{tower}') for tower in (0, 1)]
    medians = ' and '.join(f'{median:.3f}' for median in found.medians)
    difference, conclusion = element('b', f'{found.difference:.3f}'), element('b', *verdict)
    return Html(
        f'Mean share in {means[0]}, in {means[1]} (medians {medians}), difference {difference}. {chance}{conclusion}'
    )


def _course(run: Run) -> Chart:
    steps = list(run.course)
    lines = [
        Curve(f'tower {tower}', steps, [run.course[step][f'colour_tower{tower}'] for step in steps], colour)
        for tower, colour in enumerate(TOWER_COLOURS)
    ]
    return curves(
        lines,
        title='Mean chromatic share',
        xlabel='updates',
        says='Mean chromatic share of each tower’s first-layer filters over training',
        level=(COLOURLESS_NOISE, 'random weights'),
        limits=(None, None),
        half=True,
    )


def feature_maps(run: Run, layers: Sequence[LayerMaps], image: np.ndarray, what: str, album: Album) -> list[Html]:
    """What each convolution makes of an image; `what` says which image it is."""
    parts: list[Html] = [
        element(
            'div',
            Html(photo_html(image, what, side=160)),
            paragraph(
                f'{what} For each layer and tower the maps with the largest means, behind ReLU, pooling and '
                'normalisation. Black is nothing, white a map’s own largest value.'
            ),
            class_='beside',
        )
    ]
    for layer in layers:
        height, width, channels = layer.maps.shape
        blocks = []
        for tower in range(layer.towers):
            maps = layer.strongest(tower, count=_MAPS)
            pictures = map_pictures(maps, tower=tower if layer.towers > 1 else None)
            picture = Pixels(sheet(pictures, most_columns=_MAPS // 2), f'Maps of {layer.name}, tower {tower}')
            shown = Html(album.add(f'{run.name}_maps_{layer.name}_tower{tower}', picture))
            title = [tower_title(tower)] if layer.towers > 1 else []
            blocks.append(element('div', *title, shown, class_=f'tower tower{tower}' if title else ''))
        caption = f'{layer.name}: {channels} maps of {height} x {width}'
        parts.append(element('h3', caption))
        parts.append(grid(*blocks))
    return parts


def mistakes(
    run: Run, predictions: Predictions, protocol: str, picture_of: Callable[[int], np.ndarray], album: Album
) -> list[Html]:
    """What each class is taken for, and the mistakes that the network was surest of.

    Args:
      run: whose.
      predictions: of its validation split.
      protocol: under which, for people.
      picture_of: gives an image of that split, uint8 (h, w, 3).
      album: for the pictures.
    """
    names = run.network.classes
    rows = by_class(predictions, names)
    matrix = confusion(predictions)
    wrong = matrix.sum(axis=1) - np.diag(matrix)
    chosen = np.arange(len(names))
    words = f'{len(predictions.labels):,} validation images, {protocol}. '
    if len(names) > MOST_CLASSES:
        chosen = np.sort(np.argsort(-wrong, kind='stable')[:MOST_CLASSES])
        words += f'Of {len(names):,} classes the {MOST_CLASSES} with the most mistakes are in the matrix. '
    chart = confusion_chart(matrix[np.ix_(chosen, chosen)], [names[i] for i in chosen])
    worst = sorted((row for row in rows if row.images), key=lambda row: -(row.top1_error or 0))[:MOST_CLASSES]
    lines = [
        [
            row.name,
            f'{row.images:,}',
            percent(row.top1_error),
            f'{row.taken_for} ({row.taken_for_images})' if row.taken_for else 'nothing',
        ]
        for row in worst
    ]
    parts = [
        paragraph(words + 'A row of the matrix has the images of one class, by what they were called.'),
        grid(
            figure(
                album.add(f'{run.name}_confusion', chart), 'Violet is right, red is wrong; stronger is more of a row.'
            ),
            table(['class', 'images', 'error', 'mostly taken for'], lines),
        ),
    ]
    gallery = _gallery(predictions, names, picture_of)
    if gallery:
        parts += [element('h3', 'Surest mistakes'), element('div', *gallery, class_='mistakes')]
    return parts


def _gallery(predictions: Predictions, names: Sequence[str], picture_of: Callable[[int], np.ndarray]) -> list[Html]:
    called = predictions.probabilities.argmax(axis=1)
    sure = np.where(right_ranks(predictions) > 0, predictions.probabilities.max(axis=1), -1.0)
    shown = []
    for index in map(int, np.argsort(-sure, kind='stable')[:_MISTAKES]):
        if sure[index] < 0 or called[index] == predictions.labels[index]:
            continue
        right, answer = names[predictions.labels[index]], names[called[index]]
        shown.append(
            element(
                'div',
                Html(photo_html(picture_of(index), f'{right}, called {answer}', side=150)),
                element('b', answer),
                f' {100 * sure[index]:.0f}\N{NO-BREAK SPACE}%',
                element('small', f'is: {right}'),
            )
        )
    return shown
