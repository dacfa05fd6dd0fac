"""The picture of a test on corrupted images: the errors of each corruption at each severity."""

import io
import pathlib
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from alexnet_jax.files import escape_name, write_file

_COLOURS = ('#a9c4de', '#7fa3c9', '#5581ae', '#35618f', '#173a63')  # of severities 1 to 5
_PUBLISHED, _CLEAN = '#c77f2e', '#777777'


def draw_corruptions(path: pathlib.Path, result: Mapping[str, Any]) -> None:
    """Writes a PNG of the top-1 errors in `result`, which is that of result.json: a line for each corruption.

    Raises:
      InputError: the file cannot be written.
    """
    names, dataset = list(result['corruptions']), result['dataset']
    images = escape_name(result['corrupted'] or f'{dataset["name"]}, {dataset["split"]}')
    figure = Figure(figsize=(6.4, 1.4 + 0.28 * len(names)), layout='constrained')
    axes = figure.subplots()
    places = range(len(names))
    for severity, colour in enumerate(_COLOURS, start=1):
        points = [
            (100 * one['severities'][str(severity)]['top1_error'], place)
            for place, one in zip(places, result['corruptions'].values(), strict=True)
            if str(severity) in one['severities']
        ]
        if points:
            axes.plot(*zip(*points, strict=True), 'o', color=colour, label=f'severity {severity}')
    if result['imagenet']:
        theirs = [list(one['published'].values()) for one in result['corruptions'].values()]
        means = [100 * sum(errors) / len(errors) for errors in theirs]
        axes.plot(means, places, '|', color=_PUBLISHED, markersize=12, markeredgewidth=2, label='AlexNet, mean')
    if result['clean'] is not None:
        axes.axvline(100 * result['clean']['top1_error'], color=_CLEAN, linestyle=':', label='clean')
    axes.set_yticks(places, [name.replace('_', ' ') for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(axis='y', color='#e4e4e4')
    axes.set_axisbelow(True)
    axes.set_xlabel('top-1 error, %')
    axes.set_title(f'{result["networks"][0]["source"]}: {images}', size=9)
    figure.legend(loc='outside lower center', ncols=4, frameon=False, fontsize=8)
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=110)
    write_file(path, content.getvalue())
