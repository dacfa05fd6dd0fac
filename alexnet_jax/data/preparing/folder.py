"""Specifies a dataset from a folder of images, IMAGES/{train,validation[,test]}/<class>/<image> or one like it."""

import functools
import os
import pathlib
from typing import Any

from alexnet_jax.data.photo import QUALITY, photo_to_record, read_photo
from alexnet_jax.data.preparing.dataset_spec import DatasetSpec, Example, ListedSplit, hash_recipe, make_encoding
from alexnet_jax.data.preparing.folder_layout import find_layout
from alexnet_jax.data.preparing.listing import Listing
from alexnet_jax.data.preprocessing import PAPER
from alexnet_jax.data.statistics import RECORD
from alexnet_jax.errors import InputError
from alexnet_jax.files import escape_name


def make_folder_spec(
    images: str | os.PathLike[str],
    *,
    name: str,
    quality: int | None = QUALITY,
    record_size: int = RECORD,
    preprocessing: str = PAPER,
    validation_share: float | None = None,
    validation_seed: int = 0,
    validation_only: bool = False,
) -> DatasetSpec:
    """Makes the spec of a folder's dataset; `InputError` for anything that is wrong with the folder.

    Looks at the names and sizes of files, and at the first bytes of those whose extension says nothing; reads no image.
    The classes are the folders in train/, in sorted order. The records are to be JPEGs of `quality` 1..100, or where it
    is None raw, `record_size` pixels wide and high, made by `preprocessing`. `validation_share` of each class of a
    training split without a validation split is drawn for one, by `validation_seed`; with `validation_only` there is no
    training split, and the classes are those of validation.
    """
    root = pathlib.Path(images)
    if not root.is_dir():
        what = 'is a file' if root.exists() else 'is not a folder'
        raise InputError(f'{root} {what}; --images takes a folder that holds train/ and validation/')
    listing = Listing(root)
    layout = find_layout(
        listing, validation_only=validation_only, validation_share=validation_share, seed=validation_seed
    )
    splits, first = layout.splits, 'validation' if validation_only else 'train'
    classes = sorted({label for label, _ in splits[first].images})
    if len(classes) < 2:
        raise InputError(f'{splits[first].folder} has only one class, {classes[0]!r}; two are needed at least')
    label_of = {class_name: label for label, class_name in enumerate(classes)}
    examples: dict[str, list[Example]] = {}
    notes = []
    facts: list[tuple[str, str, int, int, int]] = []  # split, key, class, bytes and time of each image
    for split, found in splits.items():
        names = {class_name for class_name, _ in found.images}
        if extra := sorted(names - set(classes)):
            raise InputError(f'{found.folder} has classes that train/ has not: {", ".join(extra)}')
        if absent := [class_name for class_name in classes if class_name not in names]:
            notes.append(f'{split}/ has no images of {", ".join(absent)}')
        examples[split] = []
        for class_name, path in found.images:
            key, status = escape_name(path.relative_to(found.folder).as_posix()), path.stat()
            example = Example(key, label_of[class_name], str(path))
            examples[split].append(example)
            facts.append((split, key, example.label, status.st_size, status.st_mtime_ns))
    form: Any = {'record_size': record_size, 'preprocessing': preprocessing}
    return DatasetSpec(
        name=name,
        classes=tuple(classes),
        splits={split: ListedSplit(split, listed) for split, listed in examples.items()},
        folders={split: listing.show(found.folder) for split, found in splits.items()},
        to_record=functools.partial(file_to_record, quality=quality, **form),
        **form,
        **make_encoding(quality, record_size=record_size),
        recipe=hash_recipe('folder', name, quality, *form.values(), facts),
        unusable=tuple(f'{path}: {reason}' for path, reason in listing.unusable.items()),
        notes=(*layout.notes, *listing.notes, *notes),
        every_class=not validation_only,
        named=True,
    )


def file_to_record(path: str, quality: int | None, **form: Any) -> bytes:
    """Converts a file by `photo_to_record`; one that cannot be read is unusable like any other."""
    return photo_to_record(read_photo(path), quality, **form)
