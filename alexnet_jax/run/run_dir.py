"""The run folder: whose it is, and what it says of the run's circumstances."""

from __future__ import annotations

import json
import math
import os
import pathlib
import platform
import subprocess
import sys
from contextlib import AbstractContextManager
from importlib import metadata
from typing import Any

import jax
from jax.sharding import Mesh

from alexnet_jax.console import info
from alexnet_jax.data.dataset import Dataset, list_datasets, open_dataset
from alexnet_jax.errors import InputError
from alexnet_jax.files import HALF, hold_lock, write_json
from alexnet_jax.training.build import Run
from alexnet_jax.training.config import DEMO

# What a run is: with another value of one of these its checkpoints mean nothing, or its batches are other batches.
IDENTITY = ('variant', 'width', 'dataset', 'seed', 'batch_size')  # and what follows from them and `without`
# What runs of earlier versions do not say, and did.
BEFORE: dict[str, Any] = {'images_per_crop': 1, 'crops': None, 'without': []}
_SETTINGS_BEFORE: dict[str, Any] = {'without': [], 'tracking': ''}
LOCK = '.run.lock'
_LEAVING = 120.0  # seconds that a process has to be gone: NFSv4 keeps the locks of a lost host for 90
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'tensorflow-datasets', 'numpy')


def open_or_render(name: str, data_dir: str) -> Dataset:
    """Opens a prepared dataset; the embedded one is rendered first where it is not there yet, and says so.

    Raises:
      InputError: not prepared, or rendering failed.
    """
    if name == DEMO and DEMO not in list_datasets(data_dir):
        folder, lock = pathlib.Path(data_dir), f'.{DEMO}.first.lock'
        with hold_lock(
            folder, lock, option='--config.data_dir', busy='renders the embedded dataset', patience=math.inf
        ):
            if DEMO not in list_datasets(data_dir):  # nobody else has, while this one waited
                _render(data_dir)
    return open_dataset(name, data_dir=data_dir)


def _render(data_dir: str) -> None:
    info(f'rendering the embedded dataset into {data_dir}/{DEMO}, once')
    # In a process of its own: rendering takes a pool of processes, which must not inherit this one's threads.
    command = [sys.executable, '-m', 'alexnet_jax', 'prepare', f'--dataset={DEMO}', f'--data_dir={data_dir}']
    if subprocess.run(command, check=False, stdout=sys.stderr, stderr=sys.stderr).returncode:
        raise InputError(f'rendering the embedded dataset failed: {" ".join(command[1:])}')


def hold_run_dir(workdir: pathlib.Path, *, patience: float = _LEAVING) -> AbstractContextManager[None]:
    """Holds `workdir`, which is made where it is missing, against other runs; waits `patience` seconds for another.

    Raises:
      InputError: on entering: the folder cannot be written, or another process still holds it.
    """
    return hold_lock(workdir, LOCK, option='--workdir', busy='trains', patience=patience)


def check_run_dir(workdir: pathlib.Path, run: Run, dataset: Dataset) -> None:
    """Checks that `workdir` is this run's or free, and touches nothing.

    Raises:
      InputError: it holds another run (see IDENTITY), or something else.
    """
    identity, path = _make_identity(run, dataset), workdir / 'run.json'
    try:
        described = path.exists()
        strange = [] if described or not workdir.is_dir() else [f for f in workdir.iterdir() if f.suffix != HALF]
    except OSError as error:
        raise InputError(f'cannot read {workdir}: {error.strerror}; choose another --workdir') from error
    if described:
        before = BEFORE | _identity(path)
        other = [
            f'{key} {before.get(key)!r}, not {identity[key]!r}' for key in identity if before.get(key) != identity[key]
        ]
        if other:
            raise InputError(
                f'{workdir} holds another run ({"; ".join(other)}): choose another --workdir, or delete it'
            )
    elif any(file.name != LOCK for file in strange):
        raise InputError(f'{workdir} is not empty and holds no run: choose another --workdir')


def claim_run_dir(workdir: pathlib.Path, run: Run, dataset: Dataset) -> None:
    """Makes `workdir` this run's, or checks that it already is, and writes config.json and run.json to it.

    Raises:
      InputError: the folder cannot be written, or as `check`.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        check_run_dir(workdir, run, dataset)
        identity, path = _make_identity(run, dataset), workdir / 'run.json'
        write_json(path, {'identity': identity, 'classes': dataset.classes, **_circumstances(run.mesh)})
        settings, path = run.config.to_json(), workdir / 'config.json'
        if path.exists():
            before = _SETTINGS_BEFORE | (_settings(path) or settings)
            changed = [
                f'{key} {before.get(key)!r}, now {value!r}'
                for key, value in settings.items()
                if before.get(key) != value
            ]
            if changed:
                info(f'other settings than when this run was last started: {"; ".join(changed)}')
        write_json(path, settings)
    except OSError as error:
        raise InputError(f'cannot write to {workdir}: {error.strerror}; choose another --workdir') from error


def _make_identity(run: Run, dataset: Dataset) -> dict[str, Any]:
    variant = run.variant
    return {key: getattr(run.config, key) for key in IDENTITY} | {
        'lighting': variant.lighting.strength > 0,
        'crops': variant.crops,
        'images_per_crop': variant.images_per_crop,
        'without': sorted({*run.config.without} - {'lighting', 'crops'}),  # which the two above are
        'dataset_fingerprint': dataset.fingerprint,
    }


def _settings(path: pathlib.Path) -> dict[str, Any]:
    """What config.json says; {} where it is damaged, which is no harm: run.json says whose run it is."""
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError):
        info(f'{path} is damaged: whether settings have changed is not known, and it is written anew')
        return {}


def _identity(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())['identity']
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path} is damaged, so whose run this is is not known: choose another --workdir') from error


def _circumstances(mesh: Mesh) -> dict[str, Any]:
    devices = mesh.devices.flat
    return {
        'versions': get_versions(),
        'commit': _commit(),
        'devices': f'{mesh.devices.size} x {devices[0].device_kind} ({devices[0].platform})',
        'mesh': dict(mesh.shape),
        'host': {'machine': platform.machine(), 'processes': jax.process_count()},
        'threads': os.environ.get('PJRT_NPROC'),
        'xla_flags': os.environ.get('XLA_FLAGS'),
    }


def get_versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on."""
    return {'python': platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def _commit() -> str | None:
    """The checkout's commit, '-dirty' where files differ from it; None outside a checkout."""
    here = pathlib.Path(__file__).parent
    try:
        found = subprocess.run(
            ['git', 'describe', '--always', '--dirty', '--abbrev=40'],
            cwd=here,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:  # no git on this machine
        return None
    return found.stdout.strip() or None
