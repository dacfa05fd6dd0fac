"""Runs the measured processes in turn: A B C A B C, one working at a time, so that noise meets all of them alike."""

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import alexnet_jax
from alexnet_jax.benchmark.protocol import Setting, Worker
from alexnet_jax.benchmark.sampling import Sample
from alexnet_jax.console import info
from alexnet_jax.errors import InputError
from alexnet_jax.sharding.backend import has_glibc

TORCH_FORMS = ('eager', 'eager_channels_last', 'compiled', 'best')
TF_FORMS = ('default', 'accurate')  # of its JPEG decoder's transform: the second is the one that is used here


@dataclasses.dataclass(frozen=True)
class Measurement:
    """All samples of one program, one for each round, and the work of one call."""

    samples: list[Sample]
    flop: int
    moved: int

    @property
    def seconds(self) -> list[float]:
        """Wall-clock time of one call, in each round."""
        return [sample.seconds for sample in self.samples]

    @property
    def cpu_seconds(self) -> list[float]:
        """CPU time of one call, in each round."""
        return [sample.cpu_seconds for sample in self.samples]


Samples = dict[tuple[str, str], Measurement]  # by (process, program)


@dataclasses.dataclass(frozen=True)
class Turns:
    """How processes take turns."""

    rounds: int  # samples of each program, at least 2
    seconds: float  # of a sample, at least
    progress: Callable[[str], None] = info  # called with lines for the person who waits


@dataclasses.dataclass(frozen=True)
class Results:
    """Measurements with one batch size."""

    setting: Setting
    network: Samples  # of the rounds in which whole networks and ceilings took turns
    versions: dict[str, str]  # by library
    layers: Samples = dataclasses.field(default_factory=dict)  # of later rounds: each layer, 'train', the ceilings


def _check_machine(setting: Setting, *, torch: bool = False, compiled: bool = True, tf: bool = False) -> None:
    if setting.allocator == 'tuned' and not has_glibc():
        raise InputError("this system's C library is not glibc, whose allocator is tuned: give --allocator=default")
    if torch and importlib.util.find_spec('torch') is None:
        raise InputError("--against=torch needs PyTorch: pip install 'alexnet-jax[torch]'")
    if torch and compiled and not (shutil.which('g++') or shutil.which('clang++')):
        raise InputError('--against=torch needs a C++ compiler for torch.compile: install g++')
    if tf and importlib.util.find_spec('tensorflow') is None:
        raise InputError("--against=tf needs TensorFlow: pip install 'alexnet-jax[tensorflow]'")


def measure_step(setting: Setting, turns: Turns, *, torch: bool, layers: bool) -> Results:
    """Measures training, inference and ceilings with one batch size; PyTorch's too, and each layer, if asked.

    Raises:
      InputError: something that is needed is missing on this machine.
      RuntimeError: a measured process ended.
    """
    _check_machine(setting, torch=torch)
    ceilings = ['ceilings', *['torch_ceiling'] * torch]
    networks = ['one_device', 'two_device', *(f'torch_{form}' for form in TORCH_FORMS if torch)]
    results = Results(setting, *take_turns([*networks, *ceilings], setting, turns))
    if not layers:
        return results
    shorter = dataclasses.replace(turns, seconds=turns.seconds / 10)  # there are some fifty programs
    return dataclasses.replace(results, layers=take_turns(['layers', *ceilings], setting, shorter)[0])


def find_gpu() -> str | None:
    """Finds the name of JAX's first GPU, in a process of its own, so that this one holds no memory there; or None."""
    code = "import jax; print([d.device_kind for d in jax.devices() if d.platform in ('gpu', 'cuda', 'rocm')][0])"
    found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None if found.returncode == 0 else None


def measure_accelerator(setting: Setting, turns: Turns, *, torch: bool) -> Results:
    """Measures one device and its ceilings with one batch size, PyTorch's forms too if asked.

    One process after the other: a GPU is nobody else's, and its memory is not shared well. A form that ends, such as
    for want of memory, is said and left out.

    Raises:
      InputError: something that is needed is missing on this machine.
    """
    if torch:
        _check_machine(setting, torch=torch)
    results = Results(setting, {}, {})
    for name in ['gpu_ceilings', 'one_device', *(f'torch_{form}' for form in TORCH_FORMS if torch)]:
        try:
            samples, versions = take_turns([name], setting, turns)
        except RuntimeError as error:
            turns.progress(f'batch {setting.batch}, {setting.precision}: LEFT OUT: {error}')
            continue
        results.network.update(samples)
        results.versions.update(versions)
    return results


def measure_input(setting: Setting, turns: Turns, *, tf: bool, torch: bool, model: bool) -> Results:
    """Measures the input pipeline, and those of TensorFlow and PyTorch and the training step where they are asked for.

    Raises as `measure_step` does.
    """
    _check_machine(setting, tf=tf, torch=torch, compiled=False)
    peers = [*(f'tf_{form}' for form in TF_FORMS if tf), *['torch_loader'] * torch]
    names = ['input', *peers, *['one_device'] * model]
    return Results(setting, *take_turns(names, setting, turns))


def take_turns(names: list[str], setting: Setting, turns: Turns) -> tuple[Samples, dict[str, str]]:
    """Starts the named processes and lets all their programs take turns; returns the samples and the versions."""
    turns.progress(f'batch {setting.batch}: starting and compiling {", ".join(names)}')
    with _start_workers(names, setting) as workers:
        programs = [(worker, program) for worker in workers for program in worker.programs]
        samples = {(worker.name, do): Measurement([], **worker.programs[do]) for worker, do in programs}
        for number in range(1, turns.rounds + 1):
            for worker, do in programs:
                samples[worker.name, do].samples.append(worker.sample(do, seconds=turns.seconds))
            trained = {name: setting.batch / m.seconds[-1] for (name, do), m in samples.items() if do == 'train'}
            speeds = ', '.join(f'{name} {speed:.1f}' for name, speed in trained.items())
            turns.progress(f'batch {setting.batch}: round {number} of {turns.rounds}, training images/s: {speeds}')
        return samples, {library: version for worker in workers for library, version in worker.versions.items()}


@contextlib.contextmanager
def _start_workers(names: list[str], setting: Setting) -> Iterator[list[Worker]]:
    package_parent = str(pathlib.Path(alexnet_jax.__file__).parents[1])  # so that workers import this copy
    path = os.pathsep.join(filter(None, [package_parent, os.environ.get('PYTHONPATH')]))
    # A GPU's memory is taken as it is needed: what a process held at most is then a figure.
    platform = {'JAX_PLATFORMS': 'cuda', 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
    environment = {'TF_CPP_MIN_LOG_LEVEL': '3', 'PYTHONPATH': path}
    environment |= platform if setting.device == 'gpu' else {'JAX_PLATFORMS': 'cpu'}
    with contextlib.ExitStack() as stack:
        commands = {name: ['-m', 'alexnet_jax.benchmark.worker', name] for name in names}
        starting = (Worker(name, command, setting, environment=environment) for name, command in commands.items())
        workers = [stack.enter_context(contextlib.closing(worker)) for worker in starting]
        for worker in workers:
            worker.wait_until_ready()
        yield workers
