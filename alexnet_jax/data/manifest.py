"""The manifest of a prepared dataset: sha256 and size of every file, and the fingerprint that these make."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from alexnet_jax import InputError

MANIFEST_FILE = 'manifest.json'
# Raised when an older reader would misread a dataset. 2 is a dataset whose images stay where TFDS keeps them.
FORMAT_VERSION, ORIGINALS_VERSION = 1, 2
SMALL = 16_000_000  # bytes: what opening a dataset reads and hashes, a few milliseconds


def write_manifest(directory: pathlib.Path, *, originals: Mapping[str, Any] | None = None) -> str:
    """Adds manifest.json to a finished folder; returns the fingerprint."""
    files = {}
    for path in sorted(directory.iterdir()):
        if path.name in (MANIFEST_FILE, 'dataset_info.json'):  # the latter describes the writer, not the content
            continue
        files[path.name] = {'sha256': _sha256(path), 'bytes': path.stat().st_size}
    manifest: dict[str, Any] = {'format_version': FORMAT_VERSION, 'fingerprint': fingerprint_of(files), 'files': files}
    if originals is not None:
        manifest |= {'format_version': ORIGINALS_VERSION, 'originals': dict(originals)}
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + '\n')
    return manifest['fingerprint']


def read_manifest(directory: pathlib.Path, *, remedy: str) -> dict[str, Any]:
    """The manifest of an existing dataset, whose small files are whole and whose shards have their sizes.

    Raises:
      InputError: of another format, or damaged; ends with `remedy`.
    """
    try:
        manifest = json.loads((directory / MANIFEST_FILE).read_text())
        version = manifest['format_version']
        if version in (FORMAT_VERSION, ORIGINALS_VERSION):
            for file, entry in manifest['files'].items():
                if pathlib.PurePath(file).name != file or type(entry['bytes']) is not int or not entry['sha256']:
                    raise ValueError(file)  # a file elsewhere is none of the dataset's
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f'{directory / MANIFEST_FILE} is damaged; {remedy}') from error
    if version not in (FORMAT_VERSION, ORIGINALS_VERSION):
        raise InputError(f'{directory} has format {version!r}, not {FORMAT_VERSION} or {ORIGINALS_VERSION}; {remedy}')
    for file, entry in manifest['files'].items():
        path = directory / file
        if not path.is_file() or path.stat().st_size != entry['bytes']:
            raise InputError(f'{path} is missing or not of its {entry["bytes"]} bytes; {remedy}')
        if entry['bytes'] < SMALL and 'array_record' not in file and _sha256(path) != entry['sha256']:
            raise InputError(f'{path} has changed since it was written; {remedy}')
    return manifest


def damaged_files(directory: pathlib.Path, *, progress: Callable[[str, int, int], None] | None = None) -> list[str]:
    """Names of the files that are not what the manifest says; reads every byte.

    `progress` is told 'verified', how many files are, and of how many.
    """
    files = json.loads((directory / MANIFEST_FILE).read_text())['files']
    damaged = []
    for done, (file, entry) in enumerate(files.items(), 1):
        path = directory / file
        if not path.is_file() or path.stat().st_size != entry['bytes'] or _sha256(path) != entry['sha256']:
            damaged.append(file)
        if progress is not None:
            progress('verified', done, len(files))
    return damaged


def fingerprint_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """sha256 in hex over the names and hashes of a manifest's files: shards, features, labels, statistics."""
    lines = ''.join(f'{files[name]["sha256"]}  {name}\n' for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(path: pathlib.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
