"""Runs the measured processes in turn: A B C A B C, one working at a time, so that noise meets all of them alike."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

import alexnet_jax
from alexnet_jax import InputError
from alexnet_jax.benchmark.protocol import Setting, Subject
from alexnet_jax.benchmark.sampling import Sample
from alexnet_jax.parallel.allocator import has_glibc

TORCH_FORMS = ('eager', 'eager_channels_last', 'compiled', 'best')
TF_FORMS = ('default', 'accurate')  # of its JPEG decoder's transform: the second is the one that is used here

_ROOT = pathlib.Path(alexnet_jax.__file__).parents[1]
_PEERS = ('torch', 'tf')  # their workers are tests/peers/..._worker.py


@dataclasses.dataclass(frozen=True)
class Measured:
    """All samples of one program, one for each round, and the work of one call."""

    samples: list[Sample]
    flop: int
    moved: int

    @property
    def seconds(self) -> list[float]:
        """Of one call, in each round."""
        return [sample.seconds for sample in self.samples]


Samples = dict[tuple[str, str], Measured]  # by (subject, program)
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Results:
    """What was measured with one batch size.

    Attributes:
      network: of the rounds in which whole networks and ceilings took turns.
      layers: of later rounds, with each layer, the whole training step and the ceilings; or empty.
      versions: {library: version}.
    """

    setting: Setting
    network: Samples
    layers: Samples
    versions: dict[str, str]


def _check(setting: Setting, *, torch: bool) -> None:
    if setting.allocator == 'tuned' and not has_glibc():
        raise InputError("this system's C library is not glibc, whose allocator is tuned: give --allocator=default")
    if torch and importlib.util.find_spec('torch') is None:
        raise InputError('--against=torch needs PyTorch: pip install -r requirements-bench.txt')
    if torch and not (shutil.which('g++') or shutil.which('clang++')):
        raise InputError('--against=torch needs a C++ compiler for torch.compile: install g++')


def measure(setting: Setting, *, torch: bool, layers: bool, rounds: int, seconds: float, progress: Progress) -> Results:
    """Measures everything with one batch size; `seconds` is the least time that a sample takes.

    Raises:
      InputError: this machine has not what is needed.
      RuntimeError: a measured process ended.
    """
    _check(setting, torch=torch)
    ceilings = ['ceilings', *['torch_ceiling'] * torch]
    networks = ['one_device', 'two_device', *(f'torch_{form}' for form in TORCH_FORMS if torch)]
    network, versions = take_turns([*networks, *ceilings], setting, rounds=rounds, seconds=seconds, progress=progress)
    by_layer: Samples = {}
    if layers:
        # Some fifty short programs: a tenth of the time each.
        by_layer, _ = take_turns(['layers', *ceilings], setting, rounds=rounds, seconds=seconds / 10, progress=progress)
    return Results(setting, network, by_layer, versions)


def measure_input(
    setting: Setting, *, tf: bool, appetite: bool, rounds: int, seconds: float, progress: Progress
) -> Results:
    """Measures the input pipeline, in `Results.network`; `tf` beside TensorFlow's, `appetite` beside the training step.

    Raises:
      InputError: this machine has not what is needed.
      RuntimeError: a measured process ended.
    """
    _check(setting, torch=False)
    if tf and importlib.util.find_spec('tensorflow') is None:
        raise InputError('--against=tf needs TensorFlow: pip install -r requirements-tensorflow.txt')
    names = ['input', *(f'tf_{form}' for form in TF_FORMS if tf), *['one_device'] * appetite]
    samples, versions = take_turns(names, setting, rounds=rounds, seconds=seconds, progress=progress)
    return Results(setting, samples, {}, versions)


def take_turns(
    names: list[str], setting: Setting, *, rounds: int, seconds: float, progress: Progress
) -> tuple[Samples, dict[str, str]]:
    """Starts the subjects, and lets all their programs take turns; returns the samples and the versions."""
    progress(f'batch {setting.batch}: starting and compiling {", ".join(names)}')
    with _started(names, setting) as subjects:
        measured = {
            (subject.name, program): Measured([], **work)
            for subject in subjects
            for program, work in subject.programs.items()
        }
        for number in range(1, rounds + 1):
            for subject in subjects:
                for program in subject.programs:
                    measured[subject.name, program].samples.append(subject.sample(program, seconds=seconds))
            trained = {name: setting.batch / all_.seconds[-1] for (name, do), all_ in measured.items() if do == 'train'}
            speeds = ', '.join(f'{name} {speed:.1f}' for name, speed in trained.items())
            progress(f'batch {setting.batch}: round {number} of {rounds}, training images/s: {speeds}')
        return measured, {library: v for subject in subjects for library, v in subject.versions.items()}


@contextlib.contextmanager
def _started(names: list[str], setting: Setting) -> Iterator[list[Subject]]:
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get('PYTHONPATH')]))
    environment = {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': path}
    with contextlib.ExitStack() as stack:
        subjects = []
        for name in names:
            peer, _, form = name.partition('_')
            command = ['-m', 'alexnet_jax.benchmark.worker', name]
            if peer in _PEERS:
                command = [str(_ROOT / 'tests' / 'peers' / f'{peer}_worker.py'), form]
            subjects.append(Subject(name, command, setting, environment=environment))
            stack.callback(subjects[-1].close)
        for subject in subjects:
            subject.wait()
        yield subjects
