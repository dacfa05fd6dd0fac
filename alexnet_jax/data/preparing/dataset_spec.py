"""Specifies a dataset that is to be made: labelled images, listed or streamed, and what is known of them beforehand."""

import dataclasses
import functools
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import simplejpeg

from alexnet_jax.data.preprocessing import PAPER
from alexnet_jax.data.raw import JPEG, RAW, view_pixels
from alexnet_jax.data.statistics import RECORD
from alexnet_jax.data.versions import VERSION

# Libraries that decide the bytes of a record: work that a killed run left is used only with the same versions.
ENCODERS = ('pillow', 'simplejpeg', 'array_record')


@dataclasses.dataclass(frozen=True)
class Example:
    """An image to be prepared: a key unique within its split, its class, and what `DatasetSpec.to_record` reads."""

    key: str
    label: int
    source: Any


class Split(Protocol):
    """The examples of one split, in an order that is always the same."""

    def __len__(self) -> int: ...

    def iter_examples(self, start: int = 0) -> Iterator[Example]:
        """Yields the examples from index `start` on."""
        ...


class ListedSplit:
    """Examples known beforehand, shuffled once: by the hash of their keys, as TFDS orders the records it writes.

    A reader of the files in order then does not meet one class after the other.
    """

    def __init__(self, split: str, examples: Sequence[Example]) -> None:
        order = get_hashed_order(split, [example.key for example in examples])
        self._examples = [examples[index] for index in order]

    def __len__(self) -> int:
        return len(self._examples)

    def iter_examples(self, start: int = 0) -> Iterator[Example]:
        """Yields the examples from index `start` on."""
        return iter(self._examples[start:])


def get_hashed_order(split: str, keys: Sequence[str]) -> list[int]:
    """Returns the indices of `keys` in the order that TFDS would give them in `split`."""
    from tensorflow_datasets.core import hashing  # here, because worker processes need not load it

    hash_key = hashing.Hasher(split).hash_key
    return sorted(range(len(keys)), key=lambda index: hash_key(keys[index]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A dataset that is to be made; `to_record` and `decode` are module-level functions: worker processes call them."""

    name: str
    classes: tuple[str, ...]  # names, in label order
    splits: Mapping[str, Split]  # 'validation' at least; without 'train' the dataset tests weights only
    folders: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of each split, where that has another name
    # Converts an example's source to the bytes of a square RGB JPEG, or to raw pixels; `UnusableImage` when the source
    # is at fault.
    to_record: Callable[[Any], bytes]
    # Decodes a record to the pixels that training will see: uint8 (record_size, record_size, 3).
    decode: Callable[[bytes], np.ndarray] = simplejpeg.decode_jpeg
    encoding: str = JPEG  # of the records, or 'raw'
    record_size: int = RECORD
    version: str = VERSION  # the folder that the dataset is written to
    preprocessing: str = PAPER  # how `to_record`, or for originals `decode`, makes squares
    recipe: str  # of all that the records depend on: what a killed run has left is used under the same one only
    unusable: tuple[str, ...] = ()  # 'split/file: reason' of what was found unusable without reading it
    notes: tuple[str, ...] = ()  # sentences that the user should read
    # Of a TFDS dataset whose own images training is to read: its version folder, and by each split's name that there.
    originals: tuple[str, Mapping[str, str]] | None = None
    # Of a dataset whose records these are in another encoding: its fingerprint, and its statistics' file, to be copied.
    rewritten_from: tuple[str, str] | None = None
    named: bool = False  # whether the keys of examples are names of image files, which are kept beside the records
    # Whether each class must have a training image: a folder has images of all its classes, but a TFDS dataset made
    # from part of its archives still names all of them.
    every_class: bool = False

    @property
    def with_statistics(self) -> bool:
        """Tells whether statistics are to be computed."""
        return self.rewritten_from is None

    @property
    def statistics_split(self) -> str:
        """Returns the split that mean and covariance are of."""
        return 'train' if 'train' in self.splits else 'validation'

    def show_key(self, split: str, key: str) -> str:
        """Returns where the user finds an example."""
        return '/'.join(filter(None, (self.folders.get(split, split), key)))

    @property
    def example_count(self) -> int:
        """Counts the examples of all splits."""
        return sum(map(len, self.splits.values()))


def make_encoding(quality: int | None, *, record_size: int) -> dict[str, Any]:
    """Makes the fields of a spec whose records are JPEGs of `quality`, or where that is None raw pixels."""
    if quality is not None:
        return {'encoding': JPEG}
    return {'encoding': RAW, 'decode': functools.partial(view_pixels, record_size=record_size)}


def hash_recipe(*facts: object) -> str:
    """Hashes `facts` and the libraries' versions, all that a dataset's records depend on, to sha256 in hex."""
    versions = [(library, importlib.metadata.version(library)) for library in ENCODERS]
    return hashlib.sha256(repr((versions, facts)).encode()).hexdigest()
