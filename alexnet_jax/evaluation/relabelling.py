"""Reads labels that somebody gave a dataset's images later, several of an image or none, and finds them by file name.

Beyer et al. 2020, "Are we done with ImageNet?" (arXiv:2006.07159), looked at ImageNet's validation images again. Their
real.json, "ReaL", lists for each in turn the classes that are seen in it. An answer is right if it is one of them;
images in which people agreed on none are left out (their section 4).
"""

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from alexnet_jax.data.dataset import Dataset
from alexnet_jax.data.record_names import find_record_names
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.evaluator import Predictions
from alexnet_jax.files import escape_name, hash_file
from alexnet_jax.weights.class_names import IMAGENET, find_classes, read_class_names

MAX_BYTES = 2**27
_IMAGES = 50_000  # for validation in ImageNet
_FORMS = (
    "give ReaL's real.json, a list of 50,000 lists of ImageNet's class numbers; JSON {file: [class, ...]}; or CSV, "
    'FILE,CLASS,CLASS,... a line'
)


@dataclasses.dataclass(frozen=True)
class Relabelling:
    """Labels as a file has them.

    Attributes:
      source, sha256: the file and its hash.
      labels: of each image the names of its classes, none or more.
      numbered: whether images go by their number in ImageNet's validation split, 'ILSVRC2012_val_00000001', whatever
        the ending, and not by the name of their file.
    """

    source: str
    sha256: str
    labels: Mapping[str, Sequence[str]]
    numbered: bool


def read_relabelling(source: str) -> Relabelling:
    """Reads ReaL's list, JSON {file: [class, ...]} or {file: class}, or CSV; whole numbers in JSON are ImageNet's.

    Raises:
      InputError: there is no such file, or it is of another form.
    """
    path = pathlib.Path(source)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f'--labels={source} is too large to be labels: {_FORMS}')
        text = path.read_text(encoding='utf-8-sig')
    except OSError as error:
        raise InputError(f'--labels={source} cannot be read: {error.strerror}; {_FORMS}') from error
    except UnicodeDecodeError as error:
        raise InputError(f'--labels={source} is not UTF-8 text: {_FORMS}') from error
    try:
        is_json = text.lstrip()[:1] in ('{', '[')
        values = json.loads(text, object_pairs_hook=_collect) if is_json else _parse_csv(text)
        numbered = isinstance(values, list)
        if numbered:
            if len(values) != _IMAGES:
                raise ValueError(f'a list of {len(values):,}')
            values = {f'ILSVRC2012_val_{number:08d}': found for number, found in enumerate(values, start=1)}
        imagenet = read_class_names(IMAGENET)
        labels = {image: _parse_classes(found, imagenet) for image, found in values.items()}
    except (ValueError, RecursionError, csv.Error) as error:
        raise InputError(f'--labels={source} holds no labels ({str(error)[:80]}): {_FORMS}') from error
    return Relabelling(source, hash_file(path), labels, numbered)


def _parse_csv(text: str) -> dict[str, list[str]]:
    rows = filter(None, csv.reader(io.StringIO(text)))
    return _collect([(image, [name for name in found if name]) for image, *found in rows])


def _collect(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for image, found in pairs:
        if image in values:
            raise ValueError(f'{image} is there twice')
        values[image] = found
    return values


def _parse_classes(found: Any, imagenet: Sequence[str]) -> list[str]:
    names = []
    for one in found if isinstance(found, list) else [found]:
        if type(one) not in (int, str) or (type(one) is int and not 0 <= one < len(imagenet)):
            raise ValueError(f'{one!r} is no class')
        names.append(one if isinstance(one, str) else imagenet[one])
    return names


@dataclasses.dataclass(frozen=True)
class Relabelled:
    """What of a dataset's split has other labels.

    Attributes:
      right: bool (n, classes), the right classes of each record; none of those that are left out.
      summary: {'file', 'sha256', 'left_out', 'unknown'}: the labels' file, how many records they leave out, and how
        many images they are of that are none of the split's.
    """

    right: np.ndarray
    summary: dict[str, Any]

    def apply(self, predictions: Predictions) -> Predictions:
        """Returns the predictions of the records that have a label, with their right classes."""
        kept = self.right.any(axis=1)
        return Predictions(predictions.probabilities[kept], predictions.labels[kept], self.right[kept])


def format_summary(summary: dict[str, Any]) -> str:
    """Formats `Relabelled.summary` for people."""
    text = f'Right is any of the labels in {summary["file"]}. {summary["left_out"]:,} images without one are left out.'
    return text + f' {summary["unknown"]:,} more that it labels are not in the split.' * (summary['unknown'] > 0)


def match_labels(relabelling: Relabelling, dataset: Dataset, split: str, *, classes: Sequence[str]) -> Relabelled:
    """Finds the labels of each record of `split`, by the name of its file, among `classes`, which are scored.

    Raises:
      InputError: the dataset keeps no names, an image has no entry or two, nothing is left, or a label is none of
        `classes`.
    """
    names, source = find_record_names(dataset, split), relabelling.source
    if names is None:
        raise InputError(
            f'--labels={source} goes by file names, and {dataset.name} keeps none: prepare it again with --overwrite, '
            "from a folder (--images) or from ImageNet's archives (--manual_dir)"
        )
    places: dict[str, set[int]] = {}
    whole = frozenset(names)
    for index, name in enumerate(names):
        path = pathlib.PurePosixPath(name)
        # What is the whole name of one image is not the short one of another.
        keys = {path.stem} if relabelling.numbered else {name, path.name} - (whole - {name})
        for key in keys:
            places.setdefault(key, set()).add(index)
    outputs = _find_outputs(relabelling, places.keys(), classes, dataset)
    right, seen = np.zeros((len(names), len(classes)), bool), np.zeros(len(names), bool)
    for image in relabelling.labels.keys() & places.keys():
        if len(places[image]) > 1:
            both = ' and '.join(sorted(names[index] for index in places[image])[:2])
            raise InputError(f'--labels={source}: {image} may be {both} of {dataset.name}: name its folder too')
        (index,) = places[image]
        if seen[index]:
            raise InputError(f'--labels={source} labels {names[index]} of {dataset.name} twice')
        seen[index] = True
        right[index, [outputs[label] for label in relabelling.labels[image]]] = True
    if not seen.all():
        first = names[int(np.argmin(seen))]
        raise InputError(
            f'--labels={source} has nothing of {int((~seen).sum()):,} of the {len(names):,} images of {dataset.name}, '
            f'{split}, such as {first}: an image without a label needs an empty list'
        )
    if not right.any():
        raise InputError(f'--labels={source} leaves out all images of {dataset.name}, {split}')
    counts = {'left_out': int((~right.any(axis=1)).sum()), 'unknown': len(relabelling.labels) - len(names)}
    return Relabelled(right, {'file': escape_name(source), 'sha256': relabelling.sha256} | counts)


def _find_outputs(
    relabelling: Relabelling, images: Collection[str], classes: Sequence[str], dataset: Dataset
) -> dict[str, int]:
    """Finds {label: index in `classes`} of all labels of `images`."""
    used = sorted({label for image in relabelling.labels.keys() & images for label in relabelling.labels[image]})
    found = find_classes(used, classes)
    if found is None:  # one is of none, or two are of one
        single = {label: find_classes([label], classes) for label in used}
        if missing := [label for label, places in single.items() if places is None]:
            raise InputError(
                f'--labels={relabelling.source} has the class {missing[0]!r}, which is none of the {len(classes):,} '
                f'that are scored on {dataset.name} ({classes[0]}, ...), or more than one of them'
            )
        found = [places[0] for places in single.values() if places]
    return dict(zip(used, found, strict=True))
