"""Draws explanations: a row for each photograph, its crop and what each method shows of it."""

import io
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from alexnet_jax.evaluation.attribution import SIGNALS
from alexnet_jax.files import write_file

FOR, AGAINST = (192, 38, 38), (38, 84, 168)  # the class: what speaks for it, and against
_SIDE, _TEXT = 1.9, 0.25  # inches of a picture and of what is written below it
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
_PERCENTILE = 99.5  # of magnitudes: what is shown at full strength, so that single pixels do not dim the rest


def paint_map(numbers: np.ndarray, crop: np.ndarray) -> np.ndarray:
    """Paints a map (h, w) over its grey crop, uint8 (h, w, 3): FOR where positive, AGAINST where negative."""
    strength = np.clip(numbers / _get_scale(numbers), -1, 1)[..., None]
    grey = 0.35 * (crop @ np.array(_GREY))[..., None] + 0.65 * 255
    painted = grey * (1 - np.abs(strength)) + np.abs(strength) * np.where(strength > 0, FOR, AGAINST)
    return np.rint(painted).astype(np.uint8)


def paint_signal(signal: np.ndarray) -> np.ndarray:
    """Paints what has arrived at the pixels (h, w, 3) in their colours, uint8: grey where nothing did."""
    return np.rint(127.5 + 127.5 * np.clip(signal / _get_scale(signal), -1, 1)).astype(np.uint8)


def _get_scale(values: np.ndarray) -> float:
    return float(np.percentile(np.abs(values), _PERCENTILE)) or float(np.abs(values).max()) or 1.0


def draw_explanations(
    path: str | pathlib.Path,
    crops: np.ndarray,
    entries: Sequence[Mapping[str, Any]],
    attributions: Mapping[str, np.ndarray],
    maps: Mapping[str, np.ndarray],
) -> None:
    """Writes a PNG.

    Args:
      path: where to.
      crops: uint8 (n, size, size, 3).
      entries: of each, with 'class' and 'probability' (explain_photos.explain_photos).
      attributions, maps: {method: (n, ...)}: the former is shown of SIGNALS, the latter of all others.

    Raises:
      InputError: the file cannot be written.
    """
    columns = 1 + len(maps)
    figure = Figure((columns * _SIDE, len(crops) * (_SIDE + _TEXT)), layout='constrained')
    grid = figure.subplots(len(crops), columns, squeeze=False)
    for row, (crop, entry) in enumerate(zip(crops, entries, strict=True)):
        pictures = {f'{_shorten(entry["class"])}, {entry["probability"]:.0%}': crop}
        for method, found in maps.items():
            signal = method in SIGNALS
            pictures[method] = paint_signal(attributions[method][row]) if signal else paint_map(found[row], crop)
        for axes, (text, picture) in zip(grid[row], pictures.items(), strict=True):
            axes.set_axis_off()
            axes.imshow(picture)
            axes.set_title(text, size=8, parse_math=False)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Glyph')  # a class name that the font lacks a letter of
        figure.savefig(content, format='png', dpi=110)
    write_file(pathlib.Path(path), content.getvalue())


def _shorten(text: str, letters: int = 22) -> str:
    return text if len(text) <= letters else f'{text[: letters - 1]}…'
