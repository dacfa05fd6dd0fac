"""Looks at the checkpoints of a run folder without knowing its network: lists, verifies, exports."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from alexnet_jax.checkpoints.checkpointer import FOLDER, SET_ASIDE
from alexnet_jax.checkpoints.hashes import find_differing, hash_tree, iter_pieces
from alexnet_jax.checkpoints.manifest import DamagedError, Manifest, read_manifest
from alexnet_jax.checkpoints.orbax_io import read_arrays, read_shapes
from alexnet_jax.console import align_columns
from alexnet_jax.errors import InputError
from alexnet_jax.files import check_writable, is_litter, replacing


@dataclasses.dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint.

    Attributes:
      path: its folder.
      megabytes: on disk.
      manifest: what it says of itself; None where that cannot be read.
      problem: what is wrong; '' where nothing was found to be.
    """

    path: pathlib.Path
    megabytes: float
    manifest: Manifest | None
    problem: str

    def row(self) -> list[str]:
        """For a table."""
        if self.manifest is None:
            return [self.path.name, '', f'{self.megabytes:.1f}', '', self.problem]
        saved = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(self.manifest.saved_at))
        error = '' if self.manifest.top1_error is None else f'{self.manifest.top1_error:.2%}'
        return [self.path.name, saved, f'{self.megabytes:.1f}', error, self.problem or 'ok']


def format_checkpoints(rows: list[list[str]]) -> str:
    """Aligned columns with a title each."""
    return align_columns([['step', 'saved', 'MB', 'top-1 error', 'state'], *rows])


def iter_checkpoints(workdir: pathlib.Path, *, whole: bool) -> Iterator[CheckpointInfo]:
    """Every checkpoint of a run folder, oldest first, then those that were set aside.

    Args:
      workdir: the run folder.
      whole: whether to read every array and compare it with its hash, or only the manifest.

    Raises:
      InputError: there is none.
    """
    folder = workdir / FOLDER
    paths = sorted((path for path in folder.glob('*') if path.name.isdigit()), key=lambda path: int(path.name))
    aside = sorted(path for path in (workdir / SET_ASIDE).glob('*') if not is_litter(path.name))
    if not paths and not aside:
        raise InputError(f'{workdir} has no checkpoints: give the folder of a run, --workdir=runs/NAME')
    for path in paths:
        manifest, problem = None, ''
        try:
            manifest = read_manifest(path)
            if whole:
                load_arrays(path)
        except DamagedError as error:
            problem = f'damaged: {error}'
        yield CheckpointInfo(path, _megabytes(path), manifest, problem)
    for path in aside:
        yield CheckpointInfo(path, _megabytes(path), None, f'set aside as damaged, in {SET_ASIDE}')


def list_steps(workdir: pathlib.Path) -> list[int]:
    """The steps of all checkpoints of a run folder, in order."""
    return sorted(int(path.name) for path in (workdir / FOLDER).glob('*') if path.name.isdigit())


def find_checkpoint(workdir: pathlib.Path, step: int | None) -> pathlib.Path:
    """The folder of checkpoint `step` of a run, or of its newest; `InputError` where it has none."""
    steps = list_steps(workdir)
    if not steps or (step is not None and step not in steps):
        asked = '' if step is None else f' {step}'
        have = ', '.join(map(str, steps)) or 'none'
        raise InputError(f'{workdir} has no checkpoint{asked}: it has {have}; --workdir is the folder of a run')
    return workdir / FOLDER / str(max(steps) if step is None else step)


def load_arrays(path: pathlib.Path) -> dict[str, Any]:
    """The arrays of a checkpoint on one device, as they were saved.

    Raises:
      Damaged: they are not.
    """
    path = path.absolute()  # Orbax takes no other
    manifest = read_manifest(path)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), read_shapes(path))
    tree = read_arrays(path, like)
    wrong = find_differing(iter_pieces(tree, every_copy=True), manifest.pieces)
    if wrong:
        raise DamagedError(f'{", ".join(wrong)} not as saved')
    return tree


def export_npz(workdir: pathlib.Path, *, step: int | None, to: pathlib.Path) -> str:
    """Writes a checkpoint's weights and mean image, verified, to a NumPy archive; returns a line that says what it did.

    The archive holds float32 arrays named like 'conv1/kernel' (height, width, in, out) and 'mean_image' (the crop's
    size, 224, 224, 3), and 'about', a JSON text with the step, the run's config and `params_sha256` as in result.json.

    Args:
      workdir: the run folder.
      step: which checkpoint; None: the newest.
      to: FILE.npz.

    Raises:
      InputError: there is no such checkpoint, it is damaged, or the file cannot be written.
    """
    path = find_checkpoint(workdir, step)
    check_writable(to, option='--to')
    tree = load_arrays(path)
    config = workdir / 'config.json'
    about = {
        'step': int(path.name),
        'params_sha256': hash_tree(tree['params']),
        'config': json.loads(config.read_text()) if config.exists() else None,
    }
    arrays: dict[str, Any] = {
        f'{layer}/{name}': np.asarray(x) for layer, both in tree['params'].items() for name, x in both.items()
    }
    count = sum(x.size for x in arrays.values())
    arrays |= {'mean_image': np.asarray(tree['mean_image']), 'about': np.array(json.dumps(about))}
    with replacing(to) as file:
        np.savez(file, **arrays)
    return f'step {path.name}: {count:,} parameters and the mean image in {to}, params_sha256 {about["params_sha256"]}'


def _megabytes(path: pathlib.Path) -> float:
    return sum(file.stat().st_size for file in path.rglob('*') if file.is_file()) / 1e6
