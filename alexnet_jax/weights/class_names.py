"""Reads names of classes for weights that have none, and finds a dataset's classes among a network's by them."""

import ast
import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from alexnet_jax.errors import InputError
from alexnet_jax.model.network import Network

IMAGENET = 'imagenet2012'  # --classes: the 1000 synsets in the order of TFDS, torchvision and Caffe
_LABELS = 'datasets/imagenet2012/labels.txt'  # in TFDS's package, which is installed: no network is needed
MAX_BYTES = 2**24
_SYNSET = re.compile(r'n\d{8}(?!\d)')
_FORMS = (
    'give one name a line, as synset_words.txt ("n01440764 tench, Tinca tinca"), JSON (a list, {index: name} or '
    '{index: [synset, name]}), or imagenet2012'
)


def name_classes(network: Network, source: str | None) -> Network:
    """Returns the network with its classes named as --classes says, IMAGENET or a file; as it is where that is None.

    Raises:
      InputError: the names cannot be read, or are not one for each output.
    """
    if source is None:
        return network
    names, outputs = read_class_names(source), len(network.classes)
    if len(names) != outputs:
        raise InputError(
            f'--classes={source} names {len(names):,} classes, and {network.source} has {outputs:,} outputs: give a '
            'file with a name for each, in their order'
        )
    return dataclasses.replace(network, classes=names)


def read_class_names(source: str) -> tuple[str, ...]:
    """Reads names in the order of the outputs: one a line, JSON, or those of IMAGENET.

    Raises:
      InputError: there is no such file, or it is of another form.
    """
    if source == IMAGENET:
        return tuple(tfds.core.tfds_path(_LABELS).read_text().split())
    path = pathlib.Path(source)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f'--classes={source} is too large to be names: {_FORMS}')
        text = path.read_text(encoding='utf-8-sig')
    except OSError as error:
        raise InputError(f'--classes={source} cannot be read: {error.strerror}; {_FORMS}') from error
    except UnicodeDecodeError as error:
        raise InputError(f'--classes={source} is not UTF-8 text: {_FORMS}') from error
    try:
        names = _parse_json(text) if text.lstrip()[:1] in ('{', '[') else _parse_lines(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise InputError(f'--classes={source} holds no names of classes ({str(error)[:60]}): {_FORMS}') from error
    if not names or not all(names):
        raise InputError(f'--classes={source} holds no names, or an empty one: {_FORMS}')
    return tuple(names)


def _parse_json(text: str) -> list[str]:
    try:
        values = json.loads(text)
    except ValueError:
        values = ast.literal_eval(text)  # a Python dictionary, as a list of ImageNet's names goes round
    if isinstance(values, dict):
        if all(type(value) is int for value in values.values()):  # {name: index}, as torchvision's class_to_idx
            values = {index: name for name, index in values.items()}
        indices = {int(index): name for index, name in values.items()}
        if len(indices) != len(values) or sorted(indices) != list(range(len(indices))):
            raise ValueError('the numbers are not 0, 1, ...')
        values = [indices[index] for index in range(len(indices))]
    return [_join(value) for value in values]


def _join(value: Any) -> str:
    parts = value if isinstance(value, list | tuple) else [value]
    if not parts or not all(isinstance(part, str) for part in parts):
        raise ValueError('a name is no text')
    return ' '.join(' '.join(parts).split())


def _parse_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if lines and all(re.fullmatch(r'n\d{8}\s+\d+\s+\S+', line) for line in lines):
        raise ValueError("these are the development kit's numbers, in another order than networks' outputs")
    # 'NAME INDEX', as Places has it, and 'INDEX NAME': the numbers say the order.
    for pattern in (r'(?P<name>.+?)[\s,]+(?P<index>\d+)', r'(?P<index>\d+)[\s,:]+(?P<name>.+)'):
        found = [re.fullmatch(pattern, line) for line in lines]
        indices = {int(match['index']): match['name'] for match in found if match}
        if sorted(indices) == list(range(len(lines))) and len(set(indices.values())) == len(lines) > 1:
            return [' '.join(indices[index].split()) for index in range(len(lines))]
    return [' '.join(line.split()) for line in lines]


def is_unnamed(classes: Sequence[str]) -> bool:
    """Tells whether classes are '0', '1', ... in this order, which weights without names get."""
    return list(classes) == [str(index) for index in range(len(classes))]


def find_classes(wanted: Sequence[str], classes: Sequence[str]) -> list[int] | None:
    """Finds where each of `wanted` stands in `classes`: under the same name, synset or synonym.

    Returns:
      Indices into `classes`, each once; None where one of `wanted` is missing, or stands there more than once.
    """
    places: dict[str, set[int]] = {}
    for index, name in enumerate(classes):
        for key in _list_keys(name):
            places.setdefault(key, set()).add(index)
    found: list[int] = []
    for name in wanted:
        # The first key that is there decides: the whole name, then the synset, then a synonym.
        indices = next((places[key] for key in _list_keys(name) if key in places), set())
        if len(indices) != 1:
            return None
        found += indices
    return found if len(set(found)) == len(found) else None


def are_numbers(classes: Sequence[str]) -> bool:
    """Tells whether all of `classes` are whole numbers, and two at least."""
    return len(classes) > 1 and all(name.isascii() and name.isdecimal() for name in classes)


def find_numbers(wanted: Sequence[str], outputs: int) -> list[int] | None:
    """Reads classes as the numbers of `outputs` outputs, from 0; None where they are not, or may count from 1."""
    numbers = [int(name) for name in wanted] if are_numbers(wanted) else []
    fit = 0 in numbers and max(numbers) < outputs and len(set(numbers)) == len(numbers)
    return numbers if fit else None


def share_names(wanted: Sequence[str], classes: Sequence[str]) -> bool:
    """Tells whether any of `wanted` may be one of `classes`, under the same name, synset or synonym."""
    keys = {key for name in classes for key in _list_keys(name)}
    return any(key in keys for name in wanted for key in _list_keys(name))


def _list_keys(name: str) -> list[str]:
    """Lists what a class may be called elsewhere, the surest first: as it is, its synset, its synonyms."""
    keys, plain = [name], name
    if synset := _SYNSET.match(name):
        keys.append(synset[0])
        plain = name[synset.end() :]
    plain = re.sub(r'^/[a-z]/', '', plain.strip(' -_,:'))  # Places: '/a/airfield'
    words = [plain, *plain.split(',')]
    return list(dict.fromkeys([*keys, *(word.replace('_', ' ').strip().casefold() for word in words if word.strip())]))
