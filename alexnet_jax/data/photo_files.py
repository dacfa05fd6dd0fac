"""Opens photographs named on a command line, files or folders of them, as records that testing reads."""

import dataclasses
import functools
import os
import pathlib
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any, BinaryIO

from alexnet_jax.console import info
from alexnet_jax.data.dataset import DataSource
from alexnet_jax.data.photo import MAX_BYTES, UnusableImage, check_file_size, read_photo, square_image
from alexnet_jax.data.preparing.listing import Listing
from alexnet_jax.data.preprocessing import PAPER
from alexnet_jax.files import escape_name

# A folder's name as macOS keeps it and as others do is one name.
_compose = functools.partial(unicodedata.normalize, 'NFC')


@dataclasses.dataclass(frozen=True)
class PhotoFiles:
    """Files that are photographs, and the rest."""

    names: tuple[str, ...]  # of those that can be read, as they were given; bytes that are no text as \xe9
    labels: tuple[int | None, ...]  # of each the class that its folder is called, or None
    records: DataSource  # the same, whole, each with label 0 where it has none
    unusable: tuple[str, ...]  # 'NAME: reason' of the others


@dataclasses.dataclass(frozen=True)
class _FileSource:
    files: Sequence[str | bytes]  # a file's name, or what was in a pipe, which can be read once
    labels: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, object]:
        file = self.files[index]
        data = file if isinstance(file, bytes) else pathlib.Path(file).read_bytes()
        return {'image': data, 'label': self.labels[index] or 0}


def open_photos(names: Sequence[str], classes: Sequence[str], *, preprocessing: str = PAPER) -> PhotoFiles:
    """Reads each file once to see whether it is usable; testing reads it again, so that any number of files fits.

    `preprocessing` is how testing makes squares of them (data/preprocessing.py). A folder stands for the images in it,
    at any depth and sorted, and '-' for one on standard input. What a pipe gives is kept in memory. One line says what
    of a folder was hidden and passed over.
    """
    found: list[tuple[str, str | bytes]] = []  # name, and where the image is
    unusable = []
    for name in names:
        if name != '-' and os.path.isdir(name):
            listing = Listing(pathlib.Path(name))
            paths = list(map(os.fspath, listing.select_images(listing.list_files(listing.root))))
            unusable += [f'{escape_name(listing.root / path)}: {reason}' for path, reason in listing.unusable.items()]
            if not paths and not listing.unusable:
                unusable.append(f'{escape_name(name)}: a folder without an image')
            for note in listing.notes:
                info(f'{escape_name(name)}: {note}')
        else:
            paths = [name]
        for path in paths:
            try:
                data = _read(path)
                square_image(data)
                found.append((path, path if path != '-' and os.path.isfile(path) else data))
            except UnusableImage as error:
                unusable.append(f'{escape_name(path)}: {error}')
    label_of_class = {_compose(name): label for label, name in enumerate(classes)}
    labels = [label_of_class.get(_compose(pathlib.Path(name).absolute().parent.name)) for name, _ in found]
    source = _FileSource([file for _, file in found], labels)
    options: Any = {'class_count': len(classes), 'photos': True, 'preprocessing': preprocessing}
    records = DataSource('photographs', 'given', data_source=source, **options)
    return PhotoFiles(tuple(escape_name(name) for name, _ in found), tuple(labels), records, tuple(unusable))


def _read(name: str) -> bytes:
    path = pathlib.Path(name)
    if name == '-':
        return _read_stream(sys.stdin.buffer)
    if '://' in name and not path.exists():
        raise UnusableImage('an address, and nothing is fetched here: download the image and name its file')
    if path.is_char_device():
        raise UnusableImage('a device, not a file')
    if path.is_fifo():
        with path.open('rb') as stream:
            return _read_stream(stream)
    return read_photo(path)


def _read_stream(stream: BinaryIO) -> bytes:
    """Reads what comes through a pipe, whose size is not known before."""
    data = stream.read(MAX_BYTES + 1)
    check_file_size(len(data))
    return data
