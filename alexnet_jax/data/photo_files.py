"""Photographs named one by one on a command line, as records that testing reads."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from alexnet_jax.data.items import UnusableImage
from alexnet_jax.data.photo import checked_size, square_image
from alexnet_jax.data.source import Records


@dataclasses.dataclass(frozen=True)
class PhotoFiles:
    """Files that are photographs, and the rest.

    Attributes:
      names: those that can be read, as they were given.
      labels: of each the class that its folder is called, or None.
      records: the same, whole, each with label 0 where it has none.
      unusable: 'NAME: reason' of the others.
    """

    names: tuple[str, ...]
    labels: tuple[int | None, ...]
    records: Records
    unusable: tuple[str, ...]


class _Files:
    """A data source, as `Records` wraps it."""

    def __init__(self, paths: Sequence[pathlib.Path], labels: Sequence[int]) -> None:
        self._paths, self._labels = paths, labels

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, object]:
        return {'image': self._paths[index].read_bytes(), 'label': self._labels[index]}


def open_photos(names: Sequence[str], classes: Sequence[str]) -> PhotoFiles:
    """Reads each file once to see what it is; testing reads it again, so that any number of them fits."""
    usable, unusable = [], []
    for name in names:
        path = pathlib.Path(name)
        try:
            checked_size(path.stat().st_size)
            square_image(path.read_bytes())
            usable.append(name)
        except OSError as error:
            unusable.append(f'{name}: {error.strerror}')
        except UnusableImage as error:
            unusable.append(f'{name}: {error}')
    known = {name: index for index, name in enumerate(classes)}
    paths = [pathlib.Path(name) for name in usable]
    labels = [known.get(path.absolute().parent.name) for path in paths]
    source = _Files(paths, [label or 0 for label in labels])
    records = Records('photographs', 'given', data_source=source, class_count=len(classes), photos=True)
    return PhotoFiles(tuple(usable), tuple(labels), records, tuple(unusable))
