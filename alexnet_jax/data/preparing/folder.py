"""Specifies a dataset from a folder of images, IMAGES/{train,validation[,test]}/<class>/<image>."""

import functools
import os
import pathlib

from alexnet_jax.data.photo import QUALITY, photo_to_jpeg, read_photo
from alexnet_jax.data.preparing.dataset_spec import DatasetSpec, Example, ListedSplit, hash_recipe
from alexnet_jax.data.statistics import RECORD
from alexnet_jax.errors import InputError

IMAGE_EXTENSIONS = frozenset({'.jpg', '.jpeg', '.png', '.bmp', '.gif', '.webp', '.tif', '.tiff', '.ppm'})


def make_folder_spec(
    images: str | os.PathLike[str], *, name: str, quality: int = QUALITY, record_size: int = RECORD
) -> DatasetSpec:
    """Makes the spec of a folder's dataset; `InputError` for anything that is wrong with the folder.

    Looks at the names and sizes of files, reads no image. The classes are the folders in train/, in sorted order. The
    records are to be JPEGs of `quality` 1..100, `record_size` pixels wide and high.
    """
    root = pathlib.Path(images)
    if not root.is_dir():
        raise InputError(f'{root} is not a folder; --images takes one that holds train/ and validation/')
    found = {path.name for path in root.iterdir() if path.is_dir()}
    for split in ('train', 'validation'):
        if split not in found:
            remedy = f'rename test/, or `ln -s test {root}/validation`, to test on it; ' if 'test' in found else ''
            raise InputError(
                f'{root} has no {split}/ folder (found: {", ".join(sorted(found)) or "none"}); '
                f'{remedy * (split == "validation")}expected {root}/{{train,validation}}/<class>/<image>'
            )
    classes = _list_classes(root / 'train')
    if len(classes) < 2:
        raise InputError(f'{root / "train"} has only one class, {classes[0]!r}; two are needed at least')
    examples: dict[str, list[Example]] = {}
    unusable, notes = [], []
    facts: list[tuple[str, str, int, int]] = []  # split, key, bytes and time of each image
    for split in ('train', 'validation', *{'test'} & found):
        names = _list_classes(root / split)
        if extra := [name for name in names if name not in classes]:
            raise InputError(f'{root / split} has classes that train/ has not: {", ".join(extra)}')
        if absent := [name for name in classes if name not in names]:
            notes.append(f'{split}/ has no images of {", ".join(absent)}')
        examples[split] = []
        for class_name in names:
            before = len(facts)
            for path in _list_files(root / split / class_name):
                if path.suffix.lower() not in IMAGE_EXTENSIONS:
                    unusable.append(f'{path.relative_to(root)}: not an image extension')
                    continue
                example = Example(path.relative_to(root / split).as_posix(), classes.index(class_name), str(path))
                examples[split].append(example)
                facts.append((split, example.key, path.stat().st_size, path.stat().st_mtime_ns))
            if len(facts) == before:
                raise InputError(f'{root / split / class_name} has no images; add some or remove the folder')
    return DatasetSpec(
        name=name,
        classes=tuple(classes),
        splits={split: ListedSplit(split, listed) for split, listed in examples.items()},
        to_record=functools.partial(file_to_jpeg, quality=quality, record_size=record_size),
        record_size=record_size,
        recipe=hash_recipe('folder', name, quality, record_size, facts),
        unusable=tuple(unusable),
        notes=tuple(notes),
        every_class=True,
    )


def _list_classes(folder: pathlib.Path) -> list[str]:
    """Lists the class folders of a split, sorted; `InputError` where there are none."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith('.'))
    if not names:
        raise InputError(f'{folder} has no class folders; expected {folder}/<class>/<image>')
    return names


def _list_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Lists the files at any depth, sorted, but for hidden ones: Jupyter keeps copies in .ipynb_checkpoints."""
    paths = (path for path in folder.rglob('*') if path.is_file())
    return sorted(path for path in paths if not any(part.startswith('.') for part in path.relative_to(folder).parts))


def file_to_jpeg(path: str, quality: int, *, record_size: int = RECORD) -> bytes:
    """Converts a file by `photo_to_jpeg`; one that cannot be read is unusable like any other."""
    return photo_to_jpeg(read_photo(path), quality, record_size=record_size)
