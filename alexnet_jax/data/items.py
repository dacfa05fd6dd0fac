"""What a dataset is made from: images with labels, listed or streamed, and what is known of them beforehand."""

import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import simplejpeg

from alexnet_jax.data.statistics import RECORD

# Libraries that decide the bytes of a record: work that a killed run left is used only with the same versions.
ENCODERS = ('pillow', 'simplejpeg', 'cykooz-resizer', 'array_record')


class UnusableImage(Exception):
    """A source cannot become a training image; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One image to be prepared: a key unique within its split, its class index, and what `Plan.to_record` reads."""

    key: str
    label: int
    source: Any


class Split(Protocol):
    """The items of one split, in an order that is always the same."""

    def __len__(self) -> int:
        """How many items there are."""
        ...

    def items(self, start: int = 0) -> Iterator[Item]:
        """The items from place `start` on."""
        ...


class ListedSplit:
    """Items known beforehand, shuffled once for all: by the hash of their keys, as TFDS orders the records it writes.

    Whoever reads the files in order then does not meet one class after the other.
    """

    def __init__(self, split: str, items: Sequence[Item]) -> None:
        """Orders `items`; `split`, its name, enters the hash."""
        self._items = items
        self._order = hashed_order(split, [item.key for item in items])

    def __len__(self) -> int:
        return len(self._items)

    def items(self, start: int = 0) -> Iterator[Item]:
        """The items from place `start` on."""
        return (self._items[index] for index in self._order[start:])


def hashed_order(split: str, keys: Sequence[str]) -> list[int]:
    """Indices of `keys` in the order that TFDS would give them in `split`."""
    from tensorflow_datasets.core import hashing  # here, because worker processes need not load it

    hash_key = hashing.Hasher(split).hash_key
    return sorted(range(len(keys)), key=lambda index: hash_key(keys[index]))


@dataclasses.dataclass(frozen=True)
class Originals:
    """A TFDS dataset whose own images training is to read.

    Attributes:
      directory: its version folder.
      splits: split name here -> there.
    """

    directory: str
    splits: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A dataset that is to be made.

    Attributes:
      name: its TFDS name.
      classes: class names, in label order.
      splits: split name -> its items; 'train' and 'validation' at least.
      to_record: a module-level function, an item's source -> the record's image, the bytes of a square RGB JPEG;
        raises `UnusableImage` when the source is at fault. Runs in worker processes.
      decode: a module-level function, the record's image -> the pixels that training will see, uint8
        (record_size, record_size, 3).
      record_size: side of the records.
      recipe: names everything that the records depend on. Work that a killed run has left is used under the same
        recipe only.
      unusable: 'split/file: reason' of what was found unusable without reading it.
      notes: sentences that the user should read.
      originals: where the images stay, if only their statistics are wanted.
      every_class: whether each class must have a training image. A folder's classes are those that it has, but a TFDS
        dataset made from part of its archives still names them all.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    to_record: Callable[[Any], bytes]
    decode: Callable[[bytes], np.ndarray] = simplejpeg.decode_jpeg
    record_size: int = RECORD
    recipe: str
    unusable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    originals: Originals | None = None
    every_class: bool = False


def recipe_of(*facts: object) -> str:
    """The recipe of a plan that depends on `facts` alone: sha256 in hex over them and the libraries' versions."""
    versions = [(library, importlib.metadata.version(library)) for library in ENCODERS]
    return hashlib.sha256(repr((versions, facts)).encode()).hexdigest()
