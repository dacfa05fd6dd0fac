"""Collects the figures of a report, so that those on the page can be written as PNG files too."""

from __future__ import annotations

import itertools
import pathlib
import re

from alexnet_jax.errors import InputError
from alexnet_jax.report.drawing import Chart, Pixels


class FigureCollection:
    """Figures by name, each name fit for a file."""

    def __init__(self) -> None:
        self._figures: dict[str, Chart | Pixels] = {}

    def add(self, name: str, figure: Chart | Pixels) -> Chart | Pixels:
        """Adds a figure and returns it; `name` may hold any characters, and a repeated name gets a number."""
        name = re.sub(r'[^A-Za-z0-9_-]+', '_', name).strip('_') or 'picture'
        names = (f'{name}_{number}' if number > 1 else name for number in itertools.count(1))
        self._figures[next(free for free in names if free not in self._figures)] = figure
        return figure

    def write(self, folder: pathlib.Path) -> int:
        """Writes each figure to NAME.png in `folder`, which is created; returns the number of figures.

        Raises:
          InputError: the folder or a file cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, figure in self._figures.items():
                (folder / f'{name}.png').write_bytes(figure.to_png())
        except OSError as error:
            raise InputError(f'cannot write to {folder}: {error.strerror}') from error
        return len(self._figures)
