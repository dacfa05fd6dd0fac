"""Reads the images of one split with their classes, from class folders or from a flat folder and a table beside it."""

import collections
import dataclasses
import pathlib
import re
import shlex
import unicodedata
from collections.abc import Sequence

from alexnet_jax.data.image_formats import EXTENSIONS
from alexnet_jax.data.preparing import imagenet
from alexnet_jax.data.preparing.label_files import TABLES, find_labels, read_pets
from alexnet_jax.data.preparing.listing import Listing, is_utf8, join_first
from alexnet_jax.errors import InputError
from alexnet_jax.files import escape_name

FLAT = ('images', 'imgs')  # a split's only folder is no class
_ARCHIVES = ('.tar', '.tgz', '.gz', '.zip', '.7z', '.rar', '.bz2', '.xz')
_DEVKITS = ('ILSVRC2012_devkit_t12/data', 'ILSVRC2012_devkit_t12', 'annotations', 'labels')


@dataclasses.dataclass
class FoundSplit:
    """The images of one split."""

    folder: pathlib.Path  # which they lie below
    images: list[tuple[str, pathlib.Path]]  # class, file


class SplitReader:
    """Reads the classes of a split's images from folders or from files beside them."""

    def __init__(self, listing: Listing, top: pathlib.Path, notes: list[str]) -> None:
        self._listing, self._top, self._notes = listing, top, notes

    def read_unsplit(self, top: pathlib.Path, *, split: str) -> dict[str, FoundSplit]:
        """Reads a folder without split folders: class folders, or the Oxford pets, whose lists name two splits."""
        if (lists := read_pets(top)) is None:
            return {split: self.read_split(top, split=split, classes=None)}
        files = self._listing.list_files(top / 'images')
        splits = {}
        for path in sorted(path for paths in self._listing.list_folder(top) for path in paths):
            if path.name not in ('images', 'annotations'):
                self._listing.pass_over(path)
        for name, label_of in lists.items():
            listed = [path for path in files if path.stem in label_of and path.suffix != '.mat']
            images = self._listing.select_images(listed)
            splits[name] = FoundSplit(top / 'images', [(label_of[path.stem], path) for path in images])
        taken = {path for found in splits.values() for _, path in found.images}
        for path in files:
            if path not in taken and self._listing.show(path) not in self._listing.unusable:
                self._listing.pass_over(path)
        self._notes.append('annotations/trainval.txt and annotations/test.txt name the train and the test split')
        return splits

    def read_split(self, folder: pathlib.Path, *, split: str, classes: Sequence[str] | None) -> FoundSplit:
        """Reads one split; `InputError` where its classes are not known, but for test: it is then empty."""
        folders, files = self._listing.list_folder(folder)
        if len(folders) == 1 and folders[0].name.casefold() in FLAT:
            for path in files:
                self._listing.pass_over(path)
            inner = folders[0]
            folders, files = self._listing.list_folder(inner)
        else:
            inner = folder
        if folders:
            for path in files:
                if path.suffix.lower() in EXTENSIONS:
                    self._listing.unusable[self._listing.show(path)] = 'in no class folder'
                else:
                    self._listing.pass_over(path)
            return FoundSplit(folder, [pair for path in folders for pair in self._read_class(path)])
        return FoundSplit(folder, self._read_flat(folder, inner, files, split=split, classes=classes))

    def _read_class(self, folder: pathlib.Path) -> list[tuple[str, pathlib.Path]]:
        name = make_class_name(folder)
        files = self._listing.list_files(folder)
        # Tiny ImageNet's boxes of each class.
        boxes = [path for path in files if path.name == f'{folder.name}_boxes.txt']
        for path in boxes:
            self._listing.pass_over(path)
        images = self._listing.select_images([path for path in files if path not in boxes])
        if not images:
            raise InputError(f'{folder} has no images{self._explain(files)}; add some or remove the folder')
        return [(name, path) for path in images]

    def _explain(self, files: Sequence[pathlib.Path]) -> str:
        """Says why the first file is no image, if it is an image of another kind."""
        reasons = [(path.name, self._listing.unusable.get(self._listing.show(path), '')) for path in files]
        return next((f' ({escape_name(name)}: {reason})' for name, reason in reasons if 'not read here' in reason), '')

    def _read_flat(
        self,
        folder: pathlib.Path,
        inner: pathlib.Path,
        files: Sequence[pathlib.Path],
        *,
        split: str,
        classes: Sequence[str] | None,
    ) -> list[tuple[str, pathlib.Path]]:
        listing = self._listing
        tables = [path for path in files if path.suffix.lower() in TABLES]
        images = listing.select_images([path for path in files if path not in tables])
        if not images:
            archives = [escape_name(path.name) for path in files if path.suffix.lower() in _ARCHIVES]
            unpack = f'unpack {join_first(archives)} first, ' if archives else ''
            if {imagenet.TRAIN, imagenet.VALIDATION} & set(archives):
                unpack = f'--dataset=imagenet2012 --manual_dir={folder} reads its archives as they are; otherwise '
            raise InputError(
                f'{folder} has no class folders{self._explain(files)}; {unpack}expected {folder}/<class>/<image>'
            )
        homes = [home for home in (inner, *inner.parents) if home == listing.root or listing.root in home.parents]
        if listing.root.parts[-2:] == ('Data', 'CLS-LOC'):  # of Kaggle's archive
            homes += listing.root.parents[:3]
        places = [*homes, *(home / name for home in homes for name in _DEVKITS)]
        found = find_labels(images, places, classes=classes)
        if found is None:
            if split == 'test':
                self._notes.append(f'{listing.show(folder)}/ has no class folders and no labels: left out')
                return []
            raise InputError(
                f'{folder} has no class folders, and no table beside it names the classes of {len(images):,} files; '
                f'{_suggest_folders(inner, images, split=split)}'
            )
        labels, file = found
        for path in tables:
            listing.pass_over(path)
        if file is not None:
            listing.take(file)
        source = f'{file}' if file else "TFDS's list of ImageNet, by the images' numbers"
        self._notes.append(f'the classes of {listing.show(folder) or folder.name}/ are from {source}')
        unlabelled = [path for path in images if path not in labels]
        listing.unusable |= {listing.show(path): f'no class in {source}' for path in unlabelled}
        kept = {path: label for path, label in labels.items() if classes is None or label in classes}
        if len(kept) < len(labels):
            others = sorted({*labels.values()} - {*kept.values()})
            left = f'{len(labels) - len(kept):,} images of {len(others):,} classes that train/ has not'
            self._notes.append(f'{listing.show(folder)}/: {left} ({join_first(others)}) are left out')
        if not kept:
            raise InputError(f'{folder}: by {source} none of its images is of a class of train/')
        return [(label, path) for path, label in sorted(kept.items())]


def make_class_name(folder: pathlib.Path) -> str:
    """Returns a class folder's name in Unicode's composed form (NFC); `InputError` where no line of text can be it."""
    name = folder.name
    reason = '' if is_utf8(name) else 'is not UTF-8'
    if name != name.strip() or len(name.splitlines()) != 1:
        reason = 'begins or ends with a blank, or has several lines'
    if reason:
        shown = escape_name(str(folder).replace('\\', '\\\\').replace("'", "\\'"))
        raise InputError(f"{shown}: the class's name {reason}; rename it, as in bash: mv $'{shown}' NEW_NAME")
    return unicodedata.normalize('NFC', name)


def _suggest_folders(folder: pathlib.Path, images: Sequence[pathlib.Path], *, split: str) -> str:
    """Says what to do about images of unknown class: a line for the shell where their names seem to begin with it."""
    separators = collections.Counter(
        match[2] for path in images if (match := re.fullmatch(r'([^\W\d].*?)([ ._-]+)\d+', path.stem))
    )
    table = 'put a table beside it, labels.csv with a line FILE,CLASS for each image'
    if split != 'train' or 2 * max(separators.values(), default=0) < len(images):
        return table
    separator = max(separators, key=lambda text: separators[text])
    classes = shlex.quote(f'../{folder.name}_by_class')
    cut = f'%{separator}*' if separator[0] != '.' else '%%.*'
    loop = f'for f in *"{separator}"*.*; do c="${{f{cut}}}"; mkdir -p {classes}/"$c" && ln "$f" {classes}/"$c"/; done'
    then = f'--images={folder}_by_class --validation_share=0.1'
    return f'if the names begin with the class, `cd {shlex.quote(str(folder))} && {loop}`, then {then}; or {table}'
