"""The measures of a test as tables: CSV files for programs, text in columns for people."""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from alexnet_jax.evaluation.measures import Bin, ClassRow
from alexnet_jax.files import write_file

NAMES = {'centre': 'centre', 'ten_view': 'ten-view'}  # of the protocols, for people


def write_csv(path: pathlib.Path, rows: Iterable[dict[str, Any]], *, columns: Sequence[str]) -> None:
    """Writes `rows` under a line of `columns`; None becomes an empty cell. `InputError` where the disk refuses."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_file(path, text.getvalue())


def class_rows(protocol: str, rows: Sequence[ClassRow]) -> list[dict[str, Any]]:
    """A row for each class of a protocol."""
    return [{'protocol': protocol} | dataclasses.asdict(row) for row in rows]


def confusion_rows(protocol: str, matrix: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each cell of a confusion matrix that is not 0: of 1000 classes a million would be."""
    return [
        {'protocol': protocol, 'class': classes[i], 'called': classes[j], 'images': int(matrix[i, j])}
        for i, j in zip(*np.nonzero(matrix), strict=True)
    ]


def calibration_rows(protocol: str, rows: Sequence[Bin]) -> list[dict[str, Any]]:
    """A row for each bin of confidence."""
    return [{'protocol': protocol} | dataclasses.asdict(row) for row in rows]


CLASS_COLUMNS = ('protocol', *(field.name for field in dataclasses.fields(ClassRow)))
CONFUSION_COLUMNS = ('protocol', 'class', 'called', 'images')
CALIBRATION_COLUMNS = ('protocol', *(field.name for field in dataclasses.fields(Bin)))


def error_table(
    protocol: str,
    tested: Sequence[tuple[str, dict[str, Any]]],
    published: Sequence[dict[str, Any]],
    *,
    dataset: str,
    split: str,
) -> list[list[str]]:
    """The cells of one protocol: what was tested here, then what was published of the same protocol.

    Args:
      protocol: 'centre' or 'ten_view'.
      tested: (name, its 'examples', 'loss', 'top1_error', 'top5_error' and 'calibration_error') of each.
      published: the fields of references.Reference of each, with 'same_network' and 'not_comparable'.
      dataset, split: what was tested.
    """
    rows = [[f'{NAMES[protocol]}:', 'dataset', 'images', 'top-1', 'top-5', '']]
    for name, found in tested:
        errors = [f'{found[key]:.2%}' for key in ('top1_error', 'top5_error')]
        text = f'loss {found["loss"]:.3f}, calibration error {found["calibration_error"]:.2%}'
        rows.append([f'  {name}', f'{dataset}, {split}', f'{found["examples"]:,}', *errors, text])
    for row in published:
        errors = ['' if row[key] is None else f'{row[key]:.1%}' for key in ('top1_error', 'top5_error')]
        change = 'the same network' if row['same_network'] else row['change']
        words = '; '.join(part for part in (change, row['not_comparable']) if part)
        rows.append([f'  {row["run"]}', f'{row["dataset"]}, {row["split"]}', '', *errors, words])
    return rows
