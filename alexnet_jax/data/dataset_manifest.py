"""Writes and reads the manifest of a prepared dataset: size and sha256 of every file, and the kind of its records."""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from alexnet_jax.data.preprocessing import PAPER, PREPROCESSINGS
from alexnet_jax.data.record_names import is_names_file
from alexnet_jax.errors import InputError
from alexnet_jax.files import hash_file

MANIFEST_FILE = 'manifest.json'
# Raised when an older reader would misread a dataset. 2 is a dataset whose images stay where TFDS keeps them, 3 one of
# raw records.
FORMAT_VERSION, ORIGINALS_VERSION, RAW_VERSION = 1, 2, 3
SMALL = 16_000_000  # bytes: what opening a dataset reads and hashes, a few milliseconds


def write_dataset_manifest(
    directory: pathlib.Path,
    *,
    hashes: Mapping[str, str] | None = None,
    originals: Mapping[str, Any] | None = None,
    raw: Mapping[str, Any] | None = None,
    statistics_of: str = 'train',
    preprocessing: str = PAPER,
) -> str:
    """Adds manifest.json to a finished folder; returns the fingerprint. Reads the files that `hashes` has no sha256 of.

    Says which split the statistics are of and what made squares; of `originals` where they are, and of `raw` records
    how many each shard has (`raw.list_splits` reads that).
    """
    files = {
        path.name: {'sha256': (hashes or {}).get(path.name) or hash_file(path), 'bytes': path.stat().st_size}
        for path in sorted(directory.iterdir())
        if path.name not in (MANIFEST_FILE, 'dataset_info.json')  # the latter describes the writer, not the content
    }
    fingerprint = compute_fingerprint(files)
    manifest = {'format_version': FORMAT_VERSION, 'fingerprint': fingerprint, 'files': files}
    if statistics_of != 'train':
        manifest['statistics_of'] = statistics_of
    if preprocessing != PAPER:
        manifest['preprocessing'] = preprocessing
    if originals is not None:
        manifest |= {'format_version': ORIGINALS_VERSION, 'originals': dict(originals)}
    if raw is not None:
        manifest |= {'format_version': RAW_VERSION, 'raw': dict(raw)}
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + '\n')
    return fingerprint


def read_dataset_manifest(directory: pathlib.Path, *, remedy: str) -> dict[str, Any]:
    """Reads the manifest of a dataset; checks the size of every file, and the sha256 of the small ones.

    Raises:
      InputError: of another format, or damaged; ends with `remedy`.
    """
    try:
        manifest = json.loads((directory / MANIFEST_FILE).read_text())
        known = manifest['format_version'] in (FORMAT_VERSION, ORIGINALS_VERSION, RAW_VERSION)
        if manifest.get('preprocessing', PAPER) not in PREPROCESSINGS:
            raise ValueError(manifest['preprocessing'])
        for file, entry in manifest['files'].items() if known else ():
            if pathlib.PurePath(file).name != file or type(entry['bytes']) is not int or not entry['sha256']:
                raise ValueError(file)  # a file elsewhere is none of the dataset's
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f'{directory / MANIFEST_FILE} is damaged; {remedy}') from error
    if not known:
        found = manifest['format_version']
        raise InputError(f'{directory} has format {found!r}, not {FORMAT_VERSION} to {RAW_VERSION}; {remedy}')
    for file, entry in manifest['files'].items():
        path = directory / file
        if not path.is_file() or path.stat().st_size != entry['bytes']:
            raise InputError(f'{path} is missing or not of its {entry["bytes"]} bytes; {remedy}')
        is_shard = '-of-' in file  # 00000-of-00157
        if entry['bytes'] < SMALL and not is_shard and hash_file(path) != entry['sha256']:
            raise InputError(f'{path} has changed since it was written; {remedy}')
    return manifest


def compute_fingerprint(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Computes the sha256, in hex, of names and hashes of a manifest's files: shards, features, labels, statistics.

    Not of the files that keep names of images: a dataset that was prepared before there were any is the same.
    """
    lines = ''.join(f'{files[name]["sha256"]}  {name}\n' for name in sorted(files) if not is_names_file(name))
    return hashlib.sha256(lines.encode()).hexdigest()
