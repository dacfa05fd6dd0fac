"""Reads the classes of images that are in no class folders from the text files beside them.

Tables whose rows name an image and its class, as Kaggle's and Tiny ImageNet's; of ImageNet's validation images, TFDS's
list by their numbers; the two lists of the Oxford pets. Only text is read, no MATLAB's and no pickled file.
"""

import csv
import pathlib
import re
import unicodedata
from collections.abc import Sequence

from alexnet_jax.data.preparing import imagenet
from alexnet_jax.errors import InputError

TABLES = ('.csv', '.tsv', '.txt')
MAX_BYTES = 2**27  # of a table: ImageNet's largest has a third of it
_NAME_COLUMNS = ('filename', 'file_name', 'file', 'imageid', 'image_id', 'image', 'id', 'path', 'img', 'name')
_LABEL_COLUMNS = ('class', 'class_name', 'classname', 'label', 'breed', 'species', 'category', 'predictionstring')
_VALIDATION_NAME = re.compile(r'ILSVRC2012_val_(\d{8})\.jpe?g', re.IGNORECASE)


def find_labels(
    images: Sequence[pathlib.Path], places: Sequence[pathlib.Path], *, classes: Sequence[str] | None
) -> tuple[dict[pathlib.Path, str], pathlib.Path | None] | None:
    """Finds the classes of `images` in files in `places`, or by their numbers if they are ImageNet's for validation.

    Where `classes` are known, at least one of those found must be among them. Returns the class of each image that has
    one, and the file that has them, None for their numbers; None where they are not known.

    Raises:
      InputError: two files give different classes; ImageNet's own list is not the one that TFDS has.
    """
    found: dict[pathlib.Path, dict[pathlib.Path, str]] = {}
    for file in _list_tables(places):
        table = _read_table(file)
        labels = {path: label for path in images if (label := table.get(path.name) or table.get(path.stem))}
        known = set(labels.values())
        # One class for all is what a template of a submission gives.
        if 2 * len(labels) >= len(images) and len(known) > 1 and (classes is None or known & set(classes)):
            found[file] = labels
    if found:
        file = max(found, key=lambda file: len(found[file]))
        for other, labels in found.items():
            if any(found[file].get(path, label) != label for path, label in labels.items()):
                raise InputError(f'{file} and {other} give images different classes: move one of them elsewhere')
        return found[file], file
    numbered = {path: match for path in images if (match := _VALIDATION_NAME.fullmatch(path.name))}
    if not images or len(numbered) < len(images):
        return None
    synsets = imagenet.read_words('validation_labels.txt')
    numbers = {path: int(match[1]) for path, match in numbered.items()}
    if not all(1 <= number <= len(synsets) for number in numbers.values()):
        return None
    _check_ground_truth(list(numbers.values()), synsets, places)
    return {path: synsets[number - 1] for path, number in numbers.items()}, None


def read_pets(folder: pathlib.Path) -> dict[str, dict[str, str]] | None:
    """Reads the lists of the Oxford pets in `folder`/annotations: split, name without extension, class; None if none.

    Their classes are numbers; the names are those of the files without their own number.
    """
    lists = {'train': folder / 'annotations' / 'trainval.txt', 'test': folder / 'annotations' / 'test.txt'}
    if not all(path.is_file() for path in lists.values()):
        return None
    splits: dict[str, dict[str, str]] = {}
    number_of: dict[str, str] = {}
    for split, path in lists.items():
        rows = [row for row in map(str.split, _read_text(path).splitlines()) if row and not row[0].startswith('#')]
        splits[split] = {}
        for name, *numbers in rows:
            label, _, index = name.rpartition('_')
            if len(numbers) != 3 or not index.isdecimal() or number_of.setdefault(label, numbers[0]) != numbers[0]:
                return None  # another's lists
            splits[split][name] = label
    return splits if len(set(number_of.values())) == len(number_of) > 1 else None


def _list_tables(places: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Lists text files that may be tables, each once; none that is to be filled with answers."""
    files: dict[pathlib.Path, pathlib.Path] = {}
    for place in places:
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            name = path.name.lower()
            table = path.suffix.lower() in TABLES and 'submission' not in name and not name.startswith('.')
            if table and path.is_file() and path.stat().st_size <= MAX_BYTES:
                files.setdefault(path.resolve(), path)
    return list(files.values())


def _read_text(path: pathlib.Path) -> str:
    try:
        return path.read_bytes().decode('utf-8-sig')
    except UnicodeDecodeError:
        return path.read_bytes().decode('latin-1')
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}') from error


def _read_table(path: pathlib.Path) -> dict[str, str]:
    """Reads {image's name: class}; a name with several classes has none. Empty where it is no table."""
    lines = _read_text(path).splitlines()
    if any(',' in line for line in lines[:1]):
        try:
            rows = list(csv.reader(lines))
        except csv.Error:
            return {}
    else:
        rows = [line.split('\t') if '\t' in line else line.split() for line in lines]
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    name_at = next((header.index(name) for name in _NAME_COLUMNS if name in header), 0)
    label_at = next((header.index(name) for name in _LABEL_COLUMNS if name in header), int(name_at != 1))
    # Kaggle's of ImageNet: the class and a box, perhaps several of both.
    with_boxes = 'predictionstring' in header
    table: dict[str, str] = {}
    for row in rows:
        if len(row) > max(name_at, label_at):
            name = pathlib.PurePosixPath(row[name_at].strip().replace('\\', '/')).name
            label = unicodedata.normalize('NFC', ' '.join(row[label_at].split()))
            label = label.split(' ')[0] if with_boxes else label
            table[name] = label if table.get(name, label) == label else ''
    return table


def _check_ground_truth(numbers: Sequence[int], synsets: Sequence[str], places: Sequence[pathlib.Path]) -> None:
    """Raises `InputError` where the official list is beside the images and tells other classes apart than TFDS's.

    It has a number for each class, whose meaning is in a MATLAB file: the same number must be the same synset.
    """
    files = [path for place in places if place.is_dir() for path in place.glob('*validation_ground_truth*.txt')]
    for path in files:
        lines = _read_text(path).split()
        pairs = {(lines[number - 1], synsets[number - 1]) for number in numbers if number <= len(lines)}
        whole = max(numbers) <= len(lines)
        if not whole or not len({one for one, _ in pairs}) == len({other for _, other in pairs}) == len(pairs):
            raise InputError(
                f'{path} has other classes than ImageNet for images of these names: put the images into class folders, '
                'or a table beside them, labels.csv with a line FILE,CLASS for each'
            )
