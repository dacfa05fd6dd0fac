"""Plans ImageNet (ILSVRC 2012) from its two official archives, read in place.

TFDS's own `imagenet2012` builder reads the same archives, but needs TensorFlow and writes a second copy of 144 GB
first; it is what the tests compare with. Class names, their order and the validation labels are TFDS's files.

    ILSVRC2012_img_train.tar    one n01440764.tar a class, each of n01440764_10026.JPEG, ...
    ILSVRC2012_img_val.tar      ILSVRC2012_val_00000001.JPEG, ...: image i has line i of the list of labels
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import tarfile
from collections.abc import Iterator

import tensorflow_datasets as tfds

from alexnet_jax import InputError
from alexnet_jax.data.items import Item, Plan, UnusableImage, recipe_of
from alexnet_jax.data.photo import QUALITY, checked_size, photo_to_jpeg
from alexnet_jax.data.statistics import RECORD

TRAIN, VALIDATION = 'ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'


@dataclasses.dataclass(frozen=True)
class Official:
    """The archive as image-net.org gives it: bytes, images, md5."""

    size: int
    images: int
    md5: str


OFFICIAL = {
    TRAIN: Official(147_897_477_120, 1_281_167, '1d675b47d978889d74fa0da5fadfb00e'),
    VALIDATION: Official(6_744_924_160, 50_000, '29b22e2961454d5413ddabcf34fc5622'),
}


@dataclasses.dataclass(frozen=True)
class Piece:
    """Bytes `start` to `start + size` of a file."""

    path: str
    start: int
    size: int


class TarSplit:
    """The images of one archive, in its order."""

    def __init__(self, path: pathlib.Path, labels: dict[str, int]) -> None:
        """`labels`: of the archive's members, or of the archives in it."""
        self.path = path
        self._labels = labels
        official = OFFICIAL[path.name]
        # Counting means reading every header, minutes on a disk that turns; the official archive is known.
        known = path.stat().st_size == official.size
        self._count = official.images if known else sum(1 for _ in self.items())

    def __len__(self) -> int:
        return self._count

    def items(self, start: int = 0) -> Iterator[Item]:
        """The images from place `start` on; reads the headers only, workers read the images."""
        place = 0
        for name, offset, size in members(self.path):
            label = self._labels[name.removesuffix('.tar')]
            inner = [(name, 0, size)] if not name.endswith('.tar') else members(self.path, start=offset, size=size)
            for key, inside, length in inner:
                if place >= start:
                    yield Item(key, label, Piece(os.fspath(self.path), offset + inside, length))
                place += 1


def piece_to_jpeg(piece: Piece, quality: int, *, record_size: int = RECORD) -> bytes:
    """`photo_to_jpeg` of a piece of an archive."""
    data = os.pread(_opened(piece.path), checked_size(piece.size), piece.start)
    if len(data) < piece.size:
        raise UnusableImage('the archive ends within it')
    return photo_to_jpeg(data, quality, record_size=record_size)


@functools.cache  # one for each archive and process, until the process ends
def _opened(path: str) -> int:
    return os.open(path, os.O_RDONLY)


def members(path: pathlib.Path, *, start: int = 0, size: int | None = None) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and size of each file in a tar, or in a piece of it that is one; `InputError` if damaged."""
    where = path.name if size is None else f'{path.name}, archive at byte {start:,}'
    try:
        with path.open('rb') as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode='r:') as tar:
                for member in tar:
                    if member.size < 0:  # older Pythons do not refuse it themselves, and would go back by it
                        raise tarfile.ReadError('a member of less than no bytes')
                    if size is not None and member.offset_data - start + member.size > size:
                        raise InputError(f'{where} is cut off within {member.name}; download it again')
                    if member.isfile():
                        yield member.name, member.offset_data - start, member.size
    except InputError:
        raise
    # All but the first are what Python makes of absurd sizes.
    except (tarfile.TarError, ValueError, OverflowError, MemoryError, OSError) as e:
        reason = ' '.join(str(e).split()) or 'a size that cannot be'
        raise InputError(f'{where} is not a whole tar archive ({reason}); download it again') from e


def plan(
    manual_dir: str | os.PathLike[str],
    *,
    name: str = 'imagenet2012',
    quality: int = QUALITY,
    record_size: int = RECORD,
) -> Plan:
    """The dataset that the archives in `manual_dir` would make; reads no image.

    Args:
      manual_dir: folder that holds both archives, official or a part of them in the same layout.
      name: of the dataset.
      quality: JPEG quality of the records, 1..100.
      record_size: their side in pixels.

    Raises:
      InputError: an archive is missing, cut off, or not of the official layout, or its labels cannot be known.
    """
    folder = pathlib.Path(manual_dir).expanduser()
    absent = [file for file in OFFICIAL if not (folder / file).is_file()]
    if absent:
        raise InputError(
            f'{folder} has no {" and no ".join(absent)}; register at https://image-net.org/download-images for them'
        )
    classes = tfds.core.tfds_path('datasets/imagenet2012/labels.txt').read_text().split()
    index = {synset: label for label, synset in enumerate(classes)}
    splits = {
        'train': TarSplit(_checked_train(folder / TRAIN, index), index),
        'validation': TarSplit(folder / VALIDATION, _validation_labels(folder / VALIDATION, index)),
    }
    files = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in (split.path for split in splits.values())
    ]
    return Plan(
        name=name,
        classes=tuple(classes),
        splits=splits,
        to_record=functools.partial(piece_to_jpeg, quality=quality, record_size=record_size),
        record_size=record_size,
        recipe=recipe_of('imagenet', name, quality, record_size, files),
        notes=tuple(_notes(folder)),
    )


def _checked_train(path: pathlib.Path, index: dict[str, int]) -> pathlib.Path:
    """The training archive, all of whose members are classes that ImageNet has."""
    names = [name for name, _, _ in members(path)]
    strange = [name for name in names if name.removesuffix('.tar') not in index or not name.endswith('.tar')]
    if strange or not names:
        found = f'{strange[0]!r}, which is not' if strange else 'nothing, not'
        raise InputError(f'{path} holds {found} an archive of one of the {len(index):,} classes, such as n01440764.tar')
    return path


def _validation_labels(path: pathlib.Path, index: dict[str, int]) -> dict[str, int]:
    """Label of each validation image, by its name: images are numbered, and TFDS's list of labels has no names."""
    synsets = tfds.core.tfds_path('datasets/imagenet2012/validation_labels.txt').read_text().split()
    names = sorted(name for name, _, _ in members(path))
    expected = [f'ILSVRC2012_val_{number:08d}.JPEG' for number in range(1, len(names) + 1)]
    if not names or names != expected or len(names) > len(synsets):
        wrong = next((pair for pair in zip(names, expected, strict=True) if pair[0] != pair[1]), None)
        found = f'{wrong[0]!r} in place of {wrong[1]!r}' if wrong else f'{len(names):,} images'
        raise InputError(
            f'{path} holds {found}: validation labels go by position, so the images must be '
            f'ILSVRC2012_val_00000001.JPEG to some number of at most {len(synsets):,}, without a gap'
        )
    return {name: index[synset] for name, synset in zip(names, synsets, strict=False)}


def _notes(folder: pathlib.Path) -> Iterator[str]:
    for file, official in OFFICIAL.items():
        size = (folder / file).stat().st_size
        if size != official.size:
            yield f'{folder / file} has {size:,} bytes, the official archive {official.size:,}: a part of ImageNet'
