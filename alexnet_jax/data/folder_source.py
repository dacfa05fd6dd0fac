"""Plans a dataset from a folder of images, IMAGES/{train,validation[,test]}/<class>/<image>."""

import functools
import os
import pathlib

from alexnet_jax import InputError
from alexnet_jax.data.items import Item, ListedSplit, Plan, UnusableImage, recipe_of
from alexnet_jax.data.photo import QUALITY, checked_size, photo_to_jpeg
from alexnet_jax.data.statistics import RECORD

IMAGE_EXTENSIONS = frozenset({'.jpg', '.jpeg', '.png', '.bmp', '.gif', '.webp', '.tif', '.tiff', '.ppm'})


def plan(images: str | os.PathLike[str], *, name: str, quality: int = QUALITY, record_size: int = RECORD) -> Plan:
    """The dataset that a folder would make; looks at the names and sizes of its files and reads no image.

    Args:
      images: the folder; its classes are the folders in train/, in sorted order.
      name: of the dataset.
      quality: JPEG quality of the records, 1..100.
      record_size: their side in pixels.

    Raises:
      InputError: anything that is wrong with the folder.
    """
    root = pathlib.Path(images)
    classes, items, strangers, notes = _splits_of(root)
    facts = [(split, item.key, *_identity(item.source)) for split, listed in items.items() for item in listed]
    return Plan(
        name=name,
        classes=tuple(classes),
        splits={split: ListedSplit(split, listed) for split, listed in items.items()},
        to_record=functools.partial(file_to_jpeg, quality=quality, record_size=record_size),
        record_size=record_size,
        recipe=recipe_of('folder', name, quality, record_size, facts),
        unusable=tuple(strangers),
        notes=tuple(notes),
        every_class=True,
    )


def file_to_jpeg(path: str, quality: int, *, record_size: int = RECORD) -> bytes:
    """`photo_to_jpeg` of a file; one that cannot be read is unusable like any other."""
    try:
        checked_size(os.stat(path).st_size)
        data = pathlib.Path(path).read_bytes()
    except OSError as e:
        raise UnusableImage(e.strerror or str(e)) from e
    return photo_to_jpeg(data, quality, record_size=record_size)


def _identity(path: str) -> tuple[int, int]:
    """What tells that a file has not changed since."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


def _splits_of(root: pathlib.Path) -> tuple[list[str], dict[str, list[Item]], list[str], list[str]]:
    """Returns class names, items by split, unusable files by extension, and notes; reads no image."""
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
    classes: list[str] = []
    splits: dict[str, list[Item]] = {}
    strangers: list[str] = []
    notes: list[str] = []
    for split in ('train', 'validation', 'test'):  # training first: it names the classes
        if split not in found:
            continue
        folders = sorted(p for p in (root / split).iterdir() if p.is_dir() and not p.name.startswith('.'))
        names = [folder.name for folder in folders]
        if not names:
            raise InputError(f'{root / split} has no class folders; expected {root / split}/<class>/<image>')
        if split == 'train':
            classes = names
            if len(classes) < 2:
                raise InputError(f'{root / split} has only one class, {classes[0]!r}; two are needed at least')
        if extra := sorted(set(names) - set(classes)):
            raise InputError(f'{root / split} has classes that train/ has not: {", ".join(extra)}')
        if absent := sorted(set(classes) - set(names)):
            notes.append(f'{split}/ has no images of {", ".join(absent)}')
        splits[split] = []
        for folder in folders:
            # What is hidden is no image of the user's: Jupyter keeps copies in .ipynb_checkpoints.
            shown = (p for p in folder.rglob('*') if not any(n.startswith('.') for n in p.relative_to(folder).parts))
            files = sorted(p for p in shown if p.is_file())
            usable = [p for p in files if p.suffix.lower() in IMAGE_EXTENSIONS]
            others = [p for p in files if p.suffix.lower() not in IMAGE_EXTENSIONS]
            strangers += [f'{p.relative_to(root)}: not an image extension' for p in others]
            if not usable:
                raise InputError(f'{folder} has no images; add some or remove the folder')
            splits[split] += [
                Item(p.relative_to(root / split).as_posix(), classes.index(folder.name), str(p)) for p in usable
            ]
    return classes, splits, strangers, notes
