"""Claims a run folder: checks whose it is, and writes what it says of the run's circumstances."""

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

from alexnet_jax.checkpoints.inspect import list_steps
from alexnet_jax.console import info
from alexnet_jax.data.dataset import Dataset, list_datasets, open_dataset
from alexnet_jax.errors import InputError
from alexnet_jax.files import HALF, hold_lock, is_litter, write_json
from alexnet_jax.model.network import rename_earlier
from alexnet_jax.training.build import Run
from alexnet_jax.training.config import DEMO, KEYS

# What a run is: with another value of one of these its checkpoints mean nothing, or its batches are other batches.
IDENTITY = (
    'variant',
    'width',
    'activation',
    'dataset',
    'seed',
    'batch_size',
)  # and what follows from them and `without`
# What runs of earlier versions do not say, and did.
INITIAL: dict[str, Any] = {key: KEYS[key].default for key in ('init_from', 'init_step', 'init_mean', 'classes')}
IDENTITY_BEFORE: dict[str, Any] = INITIAL | {
    'activation': '',
    'images_per_crop': 1,
    'crops': None,
    'without': [],
    'mean_at': 'centre',
    'rate_factors': {},
    'trust_coefficient': None,
}
DATASET = ('dataset', 'dataset_fingerprint', 'rewritten_from')
SETTINGS_BEFORE: dict[str, Any] = INITIAL | {
    'without': [],
    'activation': '',
    'accumulate': 1,
    'cache': 'none',
    'tracking': '',
    'keep_every_epochs': 0,
    'probe_every': 0,
    'test_training_images': 0,
    'mean_at': None,
    'warmup_epochs': 0.0,
    'frozen': [],
    'rate_factors': {},
    'trust_coefficient': None,
    'schedule_power': 2.0,
}
LOCK = '.run.lock'
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'tensorflow-datasets', 'numpy')
# Runs a verb in a process that a terminal's Ctrl-C ends, as it does this one, but without a word of its own.
_RENDER = 'import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); from alexnet_jax.__main__ import main; main()'


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
                info(f'rendering the embedded dataset into {data_dir}/{DEMO}, once')
                # In a process of its own: it takes a pool of processes, which must not inherit this one's threads.
                options = [f'--dataset={DEMO}', f'--data_dir={data_dir}']
                done = subprocess.run(
                    [sys.executable, '-c', _RENDER, 'prepare', *options],
                    check=False,
                    env=os.environ | {'PYTHONWARNINGS': 'ignore:resource_tracker'},  # of a pool that Ctrl-C ends
                    stdout=sys.stderr,
                    stderr=sys.stderr,
                )
                if done.returncode:
                    raise InputError(f'rendering the embedded dataset failed: alexnet prepare {" ".join(options)}')
    return open_dataset(name, data_dir=data_dir)


def hold_run_dir(workdir: pathlib.Path, *, patience: float = 120.0) -> AbstractContextManager[None]:
    """Holds `workdir`, which is made where it is missing, against other runs; waits `patience` seconds for another.

    A lost host's lock goes within 90 seconds on NFSv4.

    Raises:
      InputError: on entering: the folder cannot be written, or another process still holds it.
    """
    return hold_lock(workdir, LOCK, option='--workdir', busy='trains', patience=patience)


def check_run_dir(workdir: pathlib.Path, run: Run, dataset: Dataset) -> None:
    """Checks that `workdir` is this run's or free, and touches nothing.

    Raises:
      InputError: it holds another run (see IDENTITY), one that has made more steps than `run` has, or something else.
    """
    identity, path = _make_identity(run, dataset), workdir / 'run.json'
    try:
        if not path.exists():
            files = workdir.iterdir() if workdir.is_dir() else ()
            if found := [file.name for file in files if file.name != LOCK and not _is_leftover(file.name)]:
                raise InputError(
                    f'{workdir} is not empty ({min(found)}) and holds no run: empty it, or choose another --workdir'
                )
            return
        found = json.loads(path.read_text())['identity']
        if 'mean_at' not in found:
            found |= {'variant': rename_earlier(found['variant'])}
        before = IDENTITY_BEFORE | found
        same = DATASET if _have_same_records(before, identity) else DATASET[2:]  # which says nothing by itself
        before |= {key: identity[key] for key in same}
    except OSError as error:
        raise InputError(f'cannot read {workdir}: {error.strerror}; choose another --workdir') from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(f'{path} is damaged, so whose run this is is not known: choose another --workdir') from error
    if other := _list_changes(before, identity, 'not'):
        raise InputError(
            f'{workdir} holds another run ({other}): choose another --workdir, or delete it'
            f'{_describe_ways_on(workdir, before, identity)}'
        )
    if (made := max(list_steps(workdir), default=0)) > run.steps:
        raise InputError(
            f'{workdir} has made {made} steps, and this config has {run.steps}: give --config.steps={made} or more to '
            f'go on with it, or choose another --workdir'
        )


def claim_run_dir(workdir: pathlib.Path, run: Run, dataset: Dataset, *, initial: dict[str, Any] | None = None) -> None:
    """Makes `workdir` this run's, or checks that it already is, and writes config.json and run.json to it.

    `initial` is the report of the weights that it starts from; None: what run.json says of them already.

    Raises:
      InputError: the folder cannot be written, or as `check_run_dir` and `check_initial`.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        check_run_dir(workdir, run, dataset)
        identity, path = _make_identity(run, dataset), workdir / 'run.json'
        data = {'classes': dataset.classes, 'preprocessing': dataset.preprocessing}
        if initial is not None:
            check_initial(workdir, initial)
        elif path.exists():
            initial = json.loads(path.read_text()).get('init_from')
        start = {} if initial is None else {'init_from': initial}
        write_json(path, {'identity': identity, **data, **start, **_circumstances(run.mesh)})
        settings, path = run.config.to_json(), workdir / 'config.json'
        if path.exists():
            try:
                changed = _list_changes(SETTINGS_BEFORE | dict(json.loads(path.read_text())), settings, 'now')
                if changed:
                    info(f'other settings than when this run was last started: {changed}')
            except (ValueError, TypeError):  # no harm: run.json says whose run it is
                info(f'{path} is damaged: whether settings have changed is not known, and it is written anew')
        write_json(path, settings)
    except OSError as error:
        raise InputError(f'cannot write to {workdir}: {error.strerror}; choose another --workdir') from error


def check_initial(workdir: pathlib.Path, initial: dict[str, Any]) -> None:
    """Checks that a run without a checkpoint begins again from the weights that it began from, as run.json says.

    Raises:
      InputError: a file has changed, or a run folder has another best checkpoint by now.
    """
    try:
        before = json.loads((workdir / 'run.json').read_text()).get('init_from') or {}
    except (OSError, ValueError):  # new, or damaged, of which `check_run_dir` speaks where that matters
        return
    for key in ('params_sha256', 'file_sha256'):
        if before.get(key, initial.get(key)) != initial.get(key):
            then, now = (f'{one["source"]}, {key} {str(one.get(key))[:12]}' for one in (before, initial))
            raise InputError(
                f'{workdir} began from {before["init_from"]} ({then}), which has changed ({now}): put back what it '
                f'was, or choose another --workdir'
            )


def _is_leftover(name: str) -> bool:
    return name.endswith(HALF) or is_litter(name)


def _describe_ways_on(workdir: pathlib.Path, before: dict[str, Any], identity: dict[str, Any]) -> str:
    """Describes the options that go on with the run in `workdir`, where options do, and how its weights are taken."""
    changed = [key for key in IDENTITY if key != 'dataset' and before.get(key) != identity[key]]
    # Unless the config sets them.
    follows = {'lighting', 'images_per_crop', 'mean_at'} if 'variant' in changed else set()
    changed += [key for key in ('mean_at',) if key not in follows and before.get(key) != identity[key]]
    others = {key for key in identity if before.get(key) != identity[key]} - {*changed} - follows
    if not changed or others:
        return ''
    options = ' '.join(f'--config.{key}={before.get(key)}' for key in changed)
    weights = ''
    if changed == ['batch_size']:  # the network is the same one
        weights = f'; its weights as a file: alexnet convert --workdir={workdir} --to=safetensors --output=FILE'
    return f', or go on with it: {options}{weights}'


def _make_identity(run: Run, dataset: Dataset) -> dict[str, Any]:
    variant = run.variant
    return {key: getattr(run.config, key) for key in (*IDENTITY, *INITIAL)} | {
        'lighting': variant.lighting.strength > 0,
        'crops': variant.crops,
        'images_per_crop': variant.images_per_crop,
        'mean_at': variant.mean_at,
        'rate_factors': run.rate_factors,
        'trust_coefficient': run.config.trust_coefficient,  # the update rule
        'without': sorted({*run.config.without} - {'lighting', 'crops'}),  # which the two above are
        'dataset_fingerprint': dataset.fingerprint,
        'rewritten_from': dataset.rewritten_from,
    }


def _have_same_records(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Tells whether one dataset was rewritten from the other, or both from a third: batches are equal bit for bit."""
    then, now = ({one.get(key) for key in DATASET[1:]} - {None} for one in (before, after))
    return bool(then & now)


def _list_changes(before: dict[str, Any], after: dict[str, Any], word: str) -> str:
    """Lists, for the person who reads it, the values of `after` that `before` has otherwise or not at all."""
    return '; '.join(
        f'{key} {before.get(key)!r}, {word} {after[key]!r}' for key in after if before.get(key) != after[key]
    )


def _circumstances(mesh: Mesh) -> dict[str, Any]:
    devices = mesh.devices.flat
    return {
        'versions': get_versions(),
        'commit': _get_commit(),
        'devices': f'{mesh.devices.size} x {devices[0].device_kind} ({devices[0].platform})',
        'mesh': dict(mesh.shape),
        'host': {'machine': platform.machine(), 'processes': jax.process_count()},
        'threads': os.environ.get('PJRT_NPROC'),
        'xla_flags': os.environ.get('XLA_FLAGS'),
    }


def get_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that numbers depend on."""
    return {'python': platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def _get_commit() -> str | None:
    """Returns the checkout's commit, '-dirty' where files differ from it; None outside a checkout."""
    file = pathlib.Path(__file__)

    def git(*command: str) -> str:
        return subprocess.run(['git', *command], cwd=file.parent, capture_output=True, text=True).stdout.strip()

    try:
        if git('ls-files', file.name):  # else installed in a folder of another project's checkout
            return git('describe', '--always', '--dirty', '--abbrev=40') or None
    except FileNotFoundError:  # no git on this machine
        pass
    return None
