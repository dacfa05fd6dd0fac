"""Specifies ImageNet (ILSVRC 2012) from its two official archives, read in place.

TFDS's own `imagenet2012` builder reads the same archives, but needs TensorFlow and writes a second copy of 144 GB
first; it is what the tests compare with. Class names, their order and the validation labels are TFDS's files.

    ILSVRC2012_img_train.tar    one n01440764.tar a class, each of n01440764_10026.JPEG, ...
    ILSVRC2012_img_val.tar      ILSVRC2012_val_00000001.JPEG, ...: image i has line i of the list of labels
"""

import functools
import os
import pathlib
import tarfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from alexnet_jax.data.photo import QUALITY, UnusableImage, check_file_size, photo_to_record
from alexnet_jax.data.preparing.dataset_spec import DatasetSpec, Example, hash_recipe, make_encoding
from alexnet_jax.data.preprocessing import PAPER
from alexnet_jax.data.statistics import RECORD
from alexnet_jax.errors import InputError
from alexnet_jax.files import escape_name

TRAIN, VALIDATION = 'ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'
# Of the archives that image-net.org gives; docs/data.md has their md5.
OFFICIAL_BYTES = {TRAIN: 147_897_477_120, VALIDATION: 6_744_924_160}
OFFICIAL_IMAGES = {TRAIN: 1_281_167, VALIDATION: 50_000}


class FileRange(NamedTuple):
    """Bytes `start` to `start + size` of a file."""

    path: str
    start: int
    size: int


class TarSplit:
    """The images of one archive, in its order."""

    def __init__(self, path: pathlib.Path, labels: dict[str, int]) -> None:
        """Counts the images; `labels` are of the archive's members, or of the archives in it."""
        self.path, self._labels = path, labels
        # Counting means reading every header, minutes on a disk that turns; the official archive is known.
        official = path.stat().st_size == OFFICIAL_BYTES[path.name]
        self._count = OFFICIAL_IMAGES[path.name] if official else sum(1 for _ in self.iter_examples())

    def __len__(self) -> int:
        return self._count

    def iter_examples(self, start: int = 0) -> Iterator[Example]:
        """Yields the images from index `start` on; reads the headers only, workers read the images."""
        index = 0
        for name, offset, size in iter_members(self.path):
            label = self._labels[name.removesuffix('.tar')]
            inner = [(name, 0, size)] if not name.endswith('.tar') else iter_members(self.path, start=offset, size=size)
            for key, inner_offset, length in inner:
                if index >= start:
                    yield Example(
                        escape_name(key), label, FileRange(os.fspath(self.path), offset + inner_offset, length)
                    )
                index += 1


def range_to_record(file_range: FileRange, quality: int | None, **form: Any) -> bytes:
    """Converts a range of an archive by `photo_to_record`."""
    data = os.pread(_open(file_range.path), check_file_size(file_range.size), file_range.start)
    if len(data) < file_range.size:
        raise UnusableImage('the archive ends within it')
    return photo_to_record(data, quality, **form)


@functools.cache  # one for each archive and process, until the process ends
def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY)


def iter_members(path: pathlib.Path, *, start: int = 0, size: int | None = None) -> Iterator[tuple[str, int, int]]:
    """Yields name, first byte and size of each file in a tar, or a range of it that is one; `InputError` if damaged."""
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
    except (tarfile.TarError, ValueError, OverflowError, MemoryError, OSError) as error:
        reason = ' '.join(str(error).split()) or 'a size that cannot be'
        raise InputError(f'{where} is not a whole tar archive ({reason}); download it again') from error


def make_imagenet_spec(
    manual_dir: str | os.PathLike[str],
    *,
    name: str = 'imagenet2012',
    quality: int | None = QUALITY,
    record_size: int = RECORD,
    preprocessing: str = PAPER,
    validation_only: bool = False,
) -> DatasetSpec:
    """Makes the spec of the dataset in `manual_dir`'s archives, official or a part of them in the same layout.

    Reads no image. The records are to be JPEGs of `quality` 1..100, or where it is None raw, `record_size` pixels wide
    and high, made by `preprocessing`. With `validation_only` the training archive is not needed and not read.

    Raises:
      InputError: an archive is missing, cut off, or not of the official layout, or its labels cannot be known.
    """
    folder = pathlib.Path(manual_dir).expanduser()
    wanted = [VALIDATION] if validation_only else [TRAIN, VALIDATION]
    if absent := [file for file in wanted if not (folder / file).is_file()]:
        only = ' (--validation_only does without, to test weights)' if absent == [TRAIN] else ''
        register = 'register at https://image-net.org/download-images for them'
        if any((folder / name).is_dir() for name in ('train', 'val', 'ILSVRC')):
            register = f'--images={folder} --name=imagenet2012 reads what is unpacked'
        raise InputError(f'{folder} has no {" and no ".join(absent)}; {register}{only}')
    classes = read_words('labels.txt')
    label_of_synset = {synset: label for label, synset in enumerate(classes)}
    splits = {}
    if not validation_only:
        _check_training_archive(folder / TRAIN, label_of_synset)
        splits['train'] = TarSplit(folder / TRAIN, label_of_synset)
    labels = _read_validation_labels(folder / VALIDATION, label_of_synset)
    splits['validation'] = TarSplit(folder / VALIDATION, labels)
    sizes = {split.path: split.path.stat().st_size for split in splits.values()}
    files = [(path.name, size, path.stat().st_mtime_ns) for path, size in sizes.items()]
    form: Any = {'record_size': record_size, 'preprocessing': preprocessing}
    return DatasetSpec(
        name=name,
        classes=tuple(classes),
        splits=splits,
        to_record=functools.partial(range_to_record, quality=quality, **form),
        **form,
        **make_encoding(quality, record_size=record_size),
        recipe=hash_recipe('imagenet', name, quality, *form.values(), files),
        notes=tuple(
            f'{path} has {size:,} bytes, the official archive {OFFICIAL_BYTES[path.name]:,}: a part of ImageNet'
            for path, size in sizes.items()
            if size != OFFICIAL_BYTES[path.name]
        ),
        named=True,
    )


def read_words(file: str) -> list[str]:
    """Reads a list that TFDS has of ImageNet: the synsets in label order, or of validation image 1, 2, ..."""
    return tfds.core.tfds_path(f'datasets/imagenet2012/{file}').read_text().split()


def _check_training_archive(path: pathlib.Path, label_of_synset: dict[str, int]) -> None:
    """Raises `InputError` unless every member is the archive of a class that ImageNet has."""
    names = [name for name, _, _ in iter_members(path)]
    unknown = [name for name in names if name.removesuffix('.tar') not in label_of_synset or not name.endswith('.tar')]
    if unknown or not names:
        found = f'{unknown[0]!r}, which is not' if unknown else 'nothing, not'
        classes = f'one of the {len(label_of_synset):,} classes, such as n01440764.tar'
        raise InputError(f'{path} holds {found} an archive of {classes}')


def _read_validation_labels(path: pathlib.Path, label_of_synset: dict[str, int]) -> dict[str, int]:
    """Reads each validation image's label, by its name: images are numbered, and TFDS's labels have no names."""
    synsets = read_words('validation_labels.txt')
    names = sorted(name for name, _, _ in iter_members(path))
    expected = [f'ILSVRC2012_val_{number:08d}.JPEG' for number in range(1, len(names) + 1)]
    if not names or names != expected or len(names) > len(synsets):
        wrong = next((pair for pair in zip(names, expected, strict=True) if pair[0] != pair[1]), None)
        found = f'{wrong[0]!r} in place of {wrong[1]!r}' if wrong else f'{len(names):,} images'
        raise InputError(
            f'{path} holds {found}: validation labels go by position, so the images must be '
            f'ILSVRC2012_val_00000001.JPEG to some number of at most {len(synsets):,}, without a gap'
        )
    return {name: label_of_synset[synset] for name, synset in zip(names, synsets, strict=False)}
