"""Opens photographs named one by one on a command line, as records that testing reads."""

import dataclasses
import pathlib
from collections.abc import Sequence

from alexnet_jax.data.dataset import DataSource
from alexnet_jax.data.photo import UnusableImage, read_photo, square_image


@dataclasses.dataclass(frozen=True)
class PhotoFiles:
    """Files that are photographs, and the rest."""

    names: tuple[str, ...]  # of those that can be read, as they were given
    labels: tuple[int | None, ...]  # of each the class that its folder is called, or None
    records: DataSource  # the same, whole, each with label 0 where it has none
    unusable: tuple[str, ...]  # 'NAME: reason' of the others


@dataclasses.dataclass(frozen=True)
class _FileSource:
    names: Sequence[str]
    labels: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, object]:
        return {'image': pathlib.Path(self.names[index]).read_bytes(), 'label': self.labels[index] or 0}


def open_photos(names: Sequence[str], classes: Sequence[str]) -> PhotoFiles:
    """Reads each file once to see whether it is usable; testing reads it again, so that any number of files fits."""
    usable, unusable = [], []
    for name in names:
        try:
            square_image(read_photo(name))
            usable.append(name)
        except UnusableImage as error:
            unusable.append(f'{name}: {error}')
    label_of_class = {name: label for label, name in enumerate(classes)}
    labels = [label_of_class.get(pathlib.Path(name).absolute().parent.name) for name in usable]
    source = _FileSource(usable, labels)
    records = DataSource('photographs', 'given', data_source=source, class_count=len(classes), photos=True)
    return PhotoFiles(tuple(usable), tuple(labels), records, tuple(unusable))
