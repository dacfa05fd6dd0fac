"""Finds the splits of a folder of images, and the class of each image, in the layouts that people have."""

import collections
import dataclasses
import hashlib
import pathlib
import shlex
from collections.abc import Mapping, Sequence

from alexnet_jax.data.preparing.listing import Listing, join_first
from alexnet_jax.data.preparing.split_reader import FLAT, FoundSplit, SplitReader
from alexnet_jax.errors import InputError
from alexnet_jax.files import escape_name

SPLIT_NAMES = {
    'train': ('train', 'training'),
    'validation': ('validation', 'val', 'valid', 'dev'),
    'test': ('test', 'testing'),
}
_DRAW = 'pass --validation_share=0.1 to draw a tenth of each class for validation'
_OR_TEST = 'or --validation_only to test weights on all'
# Where well-known archives have their splits or classes, from the folder that they are unpacked to.
_INNER = ('ILSVRC/Data/CLS-LOC', 'Data/CLS-LOC', '101_ObjectCategories', '256_ObjectCategories', 'images', 'Images')
_BESIDE_IMAGES = {'annotations', 'annotation', 'lists', 'meta', 'labels', 'parts', 'attributes', 'devkit', 'imagesets'}


@dataclasses.dataclass
class Layout:
    """The splits of a folder, by their names in the dataset, and sentences on what was taken for what."""

    splits: dict[str, FoundSplit]
    notes: list[str]


def find_layout(listing: Listing, *, validation_only: bool, validation_share: float | None, seed: int) -> Layout:
    """Finds the splits; draws `validation_share` of each class of train/ for validation, where it is given, by `seed`.

    `validation_only` leaves the training split out, if there is one.

    Raises:
      InputError: what is there is not clear; the message has the line that makes it so.
    """
    top, folders, notes = _find_top(listing)
    named = _match_splits(top, folders)
    if 'validation' in named and validation_share is not None:
        raise InputError(f'{top} has {named["validation"].name}/ already: leave --validation_share out')
    _check_splits(top, folders, named, validation_only=validation_only, share=validation_share)
    for split in ('test', 'train'):
        if split in named and 'validation' in named and named[split].samefile(named['validation']):
            if split == 'train':
                raise InputError(f'{named["validation"]} is train/ itself: remove it and pass --validation_share=0.1')
            notes.append(f'{named.pop(split).name}/ is the folder of the validation split: taken once')
    notes += [f'{path.name}/ is taken as the {split} split' for split, path in named.items() if path.name != split]
    reader = SplitReader(listing, top, notes)
    splits: dict[str, FoundSplit] = {}
    if not named:
        splits = reader.read_unsplit(top, split='validation' if validation_only else 'train')
        if 'validation' not in splits and validation_share is None:
            raise InputError(f'{top} has no validation split; {_DRAW}, {_OR_TEST}')
    elif not validation_only:
        splits['train'] = reader.read_split(named['train'], split='train', classes=None)
    else:
        for split in named.keys() - {'validation'}:
            listing.pass_over(named.pop(split))
    classes = sorted({label for label, _ in splits['train'].images}) if 'train' in splits else None
    for split in ('validation', 'test'):
        if split in named and (found := reader.read_split(named[split], split=split, classes=classes)).images:
            splits[split] = found
    if validation_share is not None:
        splits['train'], splits['validation'] = _draw(splits['train'], share=validation_share, seed=seed, notes=notes)
    return Layout({split: splits[split] for split in SPLIT_NAMES if split in splits}, notes)


def _find_top(listing: Listing) -> tuple[pathlib.Path, list[pathlib.Path], list[str]]:
    """Finds the folder that holds splits or classes: the root, or one inside where that has nothing else."""
    top, seen = listing.root, set[pathlib.Path]()
    while top.resolve() not in seen:
        seen.add(top.resolve())
        folders, files = listing.list_folder(top)
        if named := _match_splits(top, folders):
            for path in sorted({*folders, *files} - {*named.values()}):
                listing.pass_over(path)
            break
        if (top / 'annotations' / 'trainval.txt').is_file():
            break  # the Oxford pets, whose lists are beside their images
        inner = _choose_inner(listing, top, folders)
        if inner is None:
            break
        for level in (inner, *inner.parents)[: len(inner.relative_to(top).parts)]:
            for path in sorted({path for paths in listing.list_folder(level.parent) for path in paths} - {level}):
                listing.pass_over(path)
        top = inner
    shown = listing.show(top)
    return top, folders, [f'{shown}/ is what is read'] if shown else []


def _choose_inner(listing: Listing, top: pathlib.Path, folders: Sequence[pathlib.Path]) -> pathlib.Path | None:
    """Returns the folder in `top` that holds the splits or classes; None where `top` itself does."""
    for name in _INNER:
        others = {path.name.casefold() for path in folders} - {name.casefold()}
        if (top / name).is_dir() and (name.casefold() not in FLAT or others <= _BESIDE_IMAGES):
            return top / name
    # The only folder, but for the only class.
    return folders[0] if len(folders) == 1 and listing.list_folder(folders[0])[0] else None


def _match_splits(top: pathlib.Path, folders: Sequence[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Returns the folder of each split, by its name; `InputError` where two are named like one split."""
    named = {}
    for split, names in SPLIT_NAMES.items():
        found = {path.resolve(): path for path in folders if path.name.casefold() in names}
        if len(found) > 1:
            both = ' and '.join(f'{path.name}/' for path in found.values())
            raise InputError(f'{top} has {both}, either of them a {split} split: move or rename all but one')
        if found:
            named[split] = next(iter(found.values()))
    return named


def _check_splits(
    top: pathlib.Path,
    folders: Sequence[pathlib.Path],
    named: Mapping[str, pathlib.Path],
    *,
    validation_only: bool,
    share: float | None,
) -> None:
    """Raises `InputError` where a split is missing, with what can be done about it."""
    found = f'(found: {join_first([escape_name(path.name) for path in folders], most=10) or "no folders"})'
    if validation_only:
        if share is not None:
            raise InputError('--validation_only and --validation_share exclude each other: leave one out')
        if named and 'validation' not in named:
            raise InputError(f'{top} has no validation split {found}: leave --validation_only out, or rename a folder')
    elif folders and not named and share is None:
        raise InputError(
            f'{top} has no train/ and validation/ folders {found}; if these are the classes, {_DRAW}, {_OR_TEST}; '
            f'otherwise expected {top}/{{train,validation}}/<class>/<image>'
        )
    elif named and 'train' not in named:
        only = '; pass --validation_only if it is only to test weights' * ('validation' in named)
        expected = f'expected {top}/{{train,validation}}/<class>/<image>'
        raise InputError(f'{top} has no train/ folder {found}{only}; {expected}')
    elif named and 'validation' not in named and share is None:
        link = shlex.join(['ln', '-s', named['test'].name, str(top / 'validation')]) if 'test' in named else ''
        remedies = f'{_DRAW}, or `{link}` to test on it' if link else _DRAW
        raise InputError(f'{top} has no validation/ folder {found}; {remedies}')


def _draw(found: FoundSplit, *, share: float, seed: int, notes: list[str]) -> tuple[FoundSplit, FoundSplit]:
    """Divides a split in two: of each class the nearest whole number to `share`, but never none or all of it.

    The hash of seed, class and file decides which: another image more changes little, another disk nothing.
    """
    by_class: dict[str, list[pathlib.Path]] = collections.defaultdict(list)
    for label, path in found.images:
        by_class[label].append(path)
    drawn: set[pathlib.Path] = set()
    for label, paths in by_class.items():
        count = min(max(round(share * len(paths)), 1), len(paths) - 1)

        def rank(path: pathlib.Path, label: str = label) -> bytes:
            place = escape_name(path.relative_to(found.folder).as_posix())
            return hashlib.sha256(f'{seed}/{label}/{place}'.encode()).digest()

        drawn |= set(sorted(paths, key=rank)[:count])
    left, taken = ([(label, path) for label, path in found.images if (path in drawn) == into] for into in (False, True))
    part = f'{len(taken):,} of {len(found.images):,} images'
    notes.append(f'{part} are drawn for validation, of each class its share, by seed {seed}')
    return FoundSplit(found.folder, left), FoundSplit(found.folder, taken)
