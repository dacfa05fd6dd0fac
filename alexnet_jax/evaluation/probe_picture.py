"""The picture of a probe: the error by the layer that the features are of, in the network's order."""

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from alexnet_jax.files import write_file

_COLOURS = {'top1_error': '#1f4e79', 'top5_error': '#c77f2e'}
_NAMES = {'top1_error': 'top-1', 'top5_error': 'top-5'}


def draw_probe(path: pathlib.Path, rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Writes a PNG of the errors of `rows`, one a layer: {'layer', 'top1_error', 'top5_error'}.

    Raises:
      InputError: the file cannot be written.
    """
    figure = Figure(figsize=(6.4, 3.8), layout='constrained')
    axes = figure.subplots()
    places = range(len(rows))
    for key, colour in _COLOURS.items():
        errors = [100 * row[key] for row in rows]
        axes.plot(places, errors, marker='o', color=colour, label=_NAMES[key])
        for place, error in zip(places, errors, strict=True):
            axes.annotate(
                f'{error:.1f}', (place, error), textcoords='offset points', xytext=(0, 6), ha='center', size=8
            )
    axes.set_xticks(places, [row['layer'] for row in rows])
    axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    axes.set_ylabel('error, %')
    axes.set_title(title, size=9)
    axes.legend(frameon=False)
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=110)
    write_file(path, content.getvalue())
