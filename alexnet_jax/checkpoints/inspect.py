"""Looks at the checkpoints of a run folder without knowing its network: lists, verifies, exports."""

import contextlib
import json
import pathlib
import time
from typing import Any

import numpy as np

from alexnet_jax.checkpoints.hashes import hash_tree
from alexnet_jax.checkpoints.manifest import FOLDER, SET_ASIDE, DamagedError, list_steps, read_manifest
from alexnet_jax.checkpoints.orbax_io import load_arrays
from alexnet_jax.console import align_columns
from alexnet_jax.errors import InputError
from alexnet_jax.files import check_writable, is_litter, replacing


def format_checkpoints(workdir: pathlib.Path, *, verify: bool) -> tuple[str, bool]:
    """Formats a table of the checkpoints of a run folder, oldest first, then those that were set aside.

    With `verify` every array is read and compared with its hash, else only the manifest is read.

    Returns:
      (the table: step, time, megabytes on disk, validation error, state; whether no checkpoint is damaged).

    Raises:
      InputError: there is no checkpoint.
    """
    paths = [workdir / FOLDER / str(step) for step in list_steps(workdir)]
    aside = sorted(path for path in (workdir / SET_ASIDE).glob('*') if not is_litter(path.name))
    if not paths and not aside:
        raise InputError(f'{workdir} has no checkpoints: give the folder of a run, --workdir=runs/NAME')
    rows, whole = [['step', 'saved', 'MB', 'top-1 error', 'state']], True
    for path in [*paths, *aside]:
        saved, error, state = '', '', 'ok'
        try:
            if path in aside:
                state = f'set aside as damaged, in {SET_ASIDE}'
            else:
                manifest = read_manifest(path)
                saved = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(manifest.saved_at))
                error = '' if manifest.top1_error is None else f'{manifest.top1_error:.2%}'
                if verify:
                    load_arrays(path)
                state = 'ok, permanent' if manifest.permanent else 'ok'
        except DamagedError as damage:
            state, whole = f'damaged: {damage}', False
        size = sum(file.stat().st_size for file in path.rglob('*') if file.is_file())
        rows.append([path.name, saved, f'{size / 1e6:.1f}', error, state])
    return align_columns(rows), whole


def find_checkpoint(workdir: pathlib.Path, step: int | None) -> pathlib.Path:
    """Finds the folder of checkpoint `step` of a run, or of its newest; `InputError` where it has none."""
    steps = list_steps(workdir)
    if not steps or (step is not None and step not in steps):
        asked = '' if step is None else f' {step}'
        have = ', '.join(map(str, steps)) or 'none'
        raise InputError(f'{workdir} has no checkpoint{asked}: it has {have}; --workdir is the folder of a run')
    return workdir / FOLDER / str(max(steps) if step is None else step)


def find_best_step(workdir: pathlib.Path) -> int | None:
    """Finds the checkpoint with the lowest validation error, the newest of several; None where none was tested."""
    tested: dict[int, float] = {}
    for step in list_steps(workdir):
        with contextlib.suppress(DamagedError):
            if (error := read_manifest(workdir / FOLDER / str(step)).top1_error) is not None:
                tested[step] = error
    return min(reversed(tested), key=tested.__getitem__, default=None)


def export_npz(workdir: pathlib.Path, *, step: int | None, to: pathlib.Path) -> str:
    """Writes checkpoint `step`, None: the newest, verified, to a NumPy archive; returns a line that says what it did.

    The archive holds float32 arrays named like 'conv1/kernel' (height, width, in, out) and 'mean_image' (the crop's
    size, 224, 224, 3), and 'about', a JSON text with the step, the run's config, classes and preprocessing, and
    `params_sha256` as in result.json.

    Raises:
      InputError: there is no such checkpoint, it is damaged, or the file cannot be written.
    """
    path = find_checkpoint(workdir, step)
    check_writable(to, option='--to')
    tree = load_arrays(path)
    config, run = workdir / 'config.json', workdir / 'run.json'
    about = {
        'step': int(path.name),
        'params_sha256': hash_tree(tree['params']),
        'config': json.loads(config.read_text()) if config.exists() else None,
    }
    if run.exists():
        known = json.loads(run.read_text())
        about |= {key: known.get(key) for key in ('classes', 'preprocessing')}
    arrays: dict[str, Any] = {
        f'{layer}/{name}': np.asarray(x) for layer, both in tree['params'].items() for name, x in both.items()
    }
    count = sum(x.size for x in arrays.values())
    arrays |= {'mean_image': np.asarray(tree['mean_image']), 'about': np.array(json.dumps(about))}
    with replacing(to) as file:
        np.savez(file, **arrays)
    return f'step {path.name}: {count:,} parameters and the mean image in {to}, params_sha256 {about["params_sha256"]}'
