"""Lists folders of images, following links, and remembers all that is there and not read."""

import os
import pathlib
from collections.abc import Sequence

from alexnet_jax.data.image_formats import EXTENSIONS, HEAD, is_read, name_format
from alexnet_jax.files import escape_name

# What systems, archivers and network storage leave in folders, beside names that begin with a dot.
SYSTEM_NAMES = frozenset(
    (
        *('__macosx', 'thumbs.db', 'ehthumbs.db', 'desktop.ini', 'icon\r', '@eadir', '#recycle', '$recycle.bin'),
        *('lost+found', 'system volume information'),
    )
)
NAMED = 5  # how many paths a note names before it only counts


def is_utf8(name: str) -> bool:
    """Tells whether a file's name is text."""
    return name.isascii() or not any('\udc80' <= character <= '\udcff' for character in name)


def join_first(names: Sequence[str], separator: str = ', ', *, most: int = NAMED) -> str:
    """Joins the first names and counts the others."""
    more = f' and {len(names) - most:,} more' if len(names) > most else ''
    return separator.join(names[:most]) + more


class Listing:
    """The files below a folder, whatever is a link, and what of them cannot be read or is passed over."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.unusable: dict[str, str] = {}  # path from `root`, reason
        self._hidden: dict[str, None] = {}  # in order, each once
        self._repeated: dict[str, None] = {}
        self._unread: dict[str, None] = {}
        self._not_utf8: dict[str, None] = {}

    @property
    def notes(self) -> list[str]:
        """Lists sentences on what is passed over."""
        lines = {
            'left out, hidden or kept by a system': self._hidden,
            'not followed, links to folders that are read already': self._repeated,
            'left out, in no split': self._unread,
            'read, though their names are not UTF-8': self._not_utf8,
        }
        return [f'{text} ({len(paths):,}): {join_first(list(paths))}' for text, paths in lines.items() if paths]

    def show(self, path: pathlib.Path) -> str:
        """Returns a path from the root on, as it can be printed; '' is the root itself."""
        shown = escape_name(path.relative_to(self.root).as_posix())
        return '' if shown == '.' else shown

    def pass_over(self, path: pathlib.Path) -> None:
        """Notes something that is in no split."""
        self._unread[self.show(path)] = None

    def take(self, path: pathlib.Path) -> None:
        """Takes back that a file is passed over."""
        self._unread.pop(os.fspath(path) if self.root not in path.parents else self.show(path), None)

    def list_folder(self, folder: pathlib.Path) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
        """Lists the folders and the files in a folder, each sorted; notes all else."""
        folders, files = [], []
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self.unusable[self.show(folder)] = f'cannot be listed: {error.strerror}'
            return [], []
        for entry in entries:
            path = folder / entry.name
            try:
                if entry.name.startswith('.') or entry.name.casefold() in SYSTEM_NAMES:
                    self._hidden[self.show(path)] = None
                elif entry.is_dir():
                    folders.append(path)
                elif entry.is_file():
                    files.append(path)
                    if not is_utf8(entry.name):
                        self._not_utf8[self.show(path)] = None
                else:
                    link = entry.is_symlink()
                    self.unusable[self.show(path)] = 'a link to nothing' if link else 'neither a file nor a folder'
            except OSError as error:  # a link to itself, or into a folder that may not be entered
                self.unusable[self.show(path)] = f'cannot be looked at: {error.strerror}'
        return folders, files

    def list_files(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Lists the files at any depth of a folder, sorted; follows each folder once, and none that holds `folder`."""
        above = (folder.absolute(), pathlib.Path(os.path.realpath(folder)))
        seen = {_identify(parent) for path in above for parent in (path, *path.parents)}
        found, pending = [], [folder]
        for inner in pending:
            folders, files = self.list_folder(inner)
            found += files
            for path in folders:
                if (identity := _identify(path)) in seen:
                    self._repeated[self.show(path)] = None
                else:
                    seen.add(identity)
                    pending.append(path)
        return sorted(found)

    def select_images(self, files: Sequence[pathlib.Path]) -> list[pathlib.Path]:
        """Returns the files that are images by their extension or content; notes why the others are not."""
        images = []
        for path in files:
            extension = path.suffix.lower()
            if extension not in EXTENSIONS:
                try:
                    with path.open('rb') as file:
                        head = file.read(HEAD)
                except OSError as error:
                    self.unusable[self.show(path)] = error.strerror or str(error)
                    continue
                if not is_read(head, extension):
                    self.unusable[self.show(path)] = name_format(head, extension) or 'not an image extension'
                    continue
            images.append(path)
        return images


def _identify(path: pathlib.Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
