"""Looks at the checkpoints of a run folder without knowing its network: lists, verifies, exports."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from alexnet_jax import InputError
from alexnet_jax.training.checkpoint import FOLDER, SET_ASIDE
from alexnet_jax.training.digests import differing, leaf_hashes, pieces, tree_hash
from alexnet_jax.training.seal import Damaged, Seal, read_seal
from alexnet_jax.training.storage import described, read


@dataclasses.dataclass(frozen=True)
class Found:
    """A checkpoint.

    Attributes:
      path: its folder.
      megabytes: on disk.
      seal: what it says of itself; None where that cannot be read.
      problem: what is wrong; '' where nothing was found to be.
    """

    path: pathlib.Path
    megabytes: float
    seal: Seal | None
    problem: str

    def row(self) -> list[str]:
        """For a table."""
        if self.seal is None:
            return [self.path.name, '', f'{self.megabytes:.1f}', '', self.problem]
        saved = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(self.seal.saved_at))
        error = '' if self.seal.top1_error is None else f'{self.seal.top1_error:.2%}'
        return [self.path.name, saved, f'{self.megabytes:.1f}', error, self.problem or 'ok']


def table(rows: list[list[str]]) -> str:
    """Aligned columns with a title each."""
    rows = [['step', 'saved', 'MB', 'top-1 error', 'state'], *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join('  '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def checkpoints(workdir: pathlib.Path, *, whole: bool) -> Iterator[Found]:
    """Every checkpoint of a run folder, oldest first, then those that were set aside.

    Args:
      workdir: the run folder.
      whole: whether to read every array and compare it with its hash, or only the seal.

    Raises:
      InputError: there is none.
    """
    folder = workdir / FOLDER
    paths = sorted((path for path in folder.glob('*') if path.name.isdigit()), key=lambda path: int(path.name))
    aside = sorted((workdir / SET_ASIDE).glob('*'))
    if not paths and not aside:
        raise InputError(f'{workdir} has no checkpoints: give the folder of a run, --workdir=runs/NAME')
    for path in paths:
        seal, problem = None, ''
        try:
            seal = read_seal(path)
            if whole:
                load(path)
        except Damaged as error:
            problem = f'damaged: {error}'
        yield Found(path, _megabytes(path), seal, problem)
    for path in aside:
        yield Found(path, _megabytes(path), None, f'set aside as damaged, in {SET_ASIDE}')


def checkpoint_steps(workdir: pathlib.Path) -> list[int]:
    """The steps of all checkpoints of a run folder, in order."""
    return sorted(int(path.name) for path in (workdir / FOLDER).glob('*') if path.name.isdigit())


def newest_step(workdir: pathlib.Path, step: int | None) -> pathlib.Path:
    """The folder of checkpoint `step` of a run, or of its newest; `InputError` where it has none."""
    steps = checkpoint_steps(workdir)
    if not steps or (step is not None and step not in steps):
        asked = '' if step is None else f' {step}'
        have = ', '.join(map(str, steps)) or 'none'
        raise InputError(f'{workdir} has no checkpoint{asked}: it has {have}; --workdir is the folder of a run')
    return workdir / FOLDER / str(max(steps) if step is None else step)


def load(path: pathlib.Path) -> dict[str, Any]:
    """The arrays of a checkpoint on one device, as they were saved.

    Raises:
      Damaged: they are not.
    """
    path = path.absolute()  # Orbax takes no other
    seal = read_seal(path)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), described(path))
    tree = read(path, like)
    if seal.old:
        hashes = leaf_hashes(tree)
        wrong = sorted(name for name in hashes | seal.pieces if hashes.get(name) != seal.pieces.get(name))
    else:
        wrong = differing(pieces(tree, every_copy=True), seal.pieces)
    if wrong:
        raise Damaged(f'{", ".join(wrong)} not as saved')
    return tree


def export(workdir: pathlib.Path, *, step: int | None, to: pathlib.Path) -> str:
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
    path = newest_step(workdir, step)
    tree = load(path)
    config = workdir / 'config.json'
    about = {
        'step': int(path.name),
        'params_sha256': tree_hash(tree['params']),
        'config': json.loads(config.read_text()) if config.exists() else None,
    }
    arrays: dict[str, Any] = {
        f'{layer}/{name}': np.asarray(x) for layer, both in tree['params'].items() for name, x in both.items()
    }
    count = sum(x.size for x in arrays.values())
    arrays |= {'mean_image': np.asarray(tree['mean_image']), 'about': np.array(json.dumps(about))}
    half = to.with_name(f'.{to.name}.half')
    try:
        with half.open('wb') as file:
            np.savez(file, **arrays)
        os.replace(half, to)
    except OSError as error:
        raise InputError(f'cannot write {to}: {error.strerror}') from error
    return f'step {path.name}: {count:,} parameters and the mean image in {to}, params_sha256 {about["params_sha256"]}'


def _megabytes(path: pathlib.Path) -> float:
    return sum(file.stat().st_size for file in path.rglob('*') if file.is_file()) / 1e6
