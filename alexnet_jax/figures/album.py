"""The pictures of a report: each goes into the page, and where asked for into a folder as a PNG."""

from __future__ import annotations

import pathlib
import re

from alexnet_jax import InputError
from alexnet_jax.figures.drawing import Picture


class Album:
    """Keeps what comes into the page under a name that files can have."""

    def __init__(self) -> None:
        self._pictures: dict[str, Picture] = {}

    def add(self, name: str, picture: Picture) -> str:
        """Keeps the picture and gives its HTML; `name` may hold anything, and the second of a name gets another."""
        name = re.sub(r'[^A-Za-z0-9_-]+', '_', name).strip('_') or 'picture'
        free = next(n for n in (name, *(f'{name}_{i}' for i in range(2, 10_000))) if n not in self._pictures)
        self._pictures[free] = picture
        return picture.html()

    def write(self, folder: pathlib.Path) -> int:
        """Writes NAME.png of each into `folder`, which is made; returns how many.

        Raises:
          InputError: the folder or a file cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, picture in self._pictures.items():
                (folder / f'{name}.png').write_bytes(picture.png())
        except OSError as error:
            raise InputError(f'cannot write to {folder}: {error.strerror}') from error
        return len(self._pictures)
