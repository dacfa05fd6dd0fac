"""Keeps, beside the records of a split, the name of the image file that each was made of."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from alexnet_jax.errors import InputError

_END = '_names.json'


def is_names_file(file: str) -> bool:
    """Tells whether a dataset's file holds names; training reads none, so they are no part of its fingerprint."""
    return file.endswith(_END)


def write_record_names(path: pathlib.Path, names: Sequence[str]) -> None:
    """Writes names in the order of the records."""
    path.write_bytes(json.dumps(list(names), ensure_ascii=False, indent=0).encode() + b'\n')


def get_names_path(directory: pathlib.Path, split: str) -> pathlib.Path:
    """Returns where the names of a split are."""
    return directory / f'{split}{_END}'


def find_record_names(dataset: Any, split: str) -> tuple[str, ...] | None:
    r"""Finds the names of a `dataset.Dataset`'s records, in their order; None where it keeps none.

    They are relative to the folder of the split, 'CLASS/IMAGE' or 'IMAGE', of ImageNet's archives 'IMAGE'; bytes that
    are not UTF-8 as \xe9.

    Raises:
      InputError: they are not of these records.
    """
    path = get_names_path(dataset.directory, split)
    if not path.is_file():
        return None
    try:
        names = json.loads(path.read_bytes())
        whole = isinstance(names, list) and all(type(name) is str for name in names)
        if not whole or len(names) != dataset.examples(split):
            raise ValueError('not of these records')
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f'{path} does not hold the names of the images; prepare them again with --overwrite'
        ) from error
    return tuple(names)
