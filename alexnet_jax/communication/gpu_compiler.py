"""Asks XLA's compiler for GPUs, in a process of its own, for the step on GPUs that are not here."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection
from typing import Any

import alexnet_jax
from alexnet_jax.communication.gpu_program import GpuProgram, from_json
from alexnet_jax.communication.gpus import find_target, get_gpu, parse_hosts
from alexnet_jax.communication.messages import Message
from alexnet_jax.errors import InputError
from alexnet_jax.training.config import Config

# Plugins of JAX that have the compiler, and the packages that have what it calls to make a GPU's own code, ptxas.
_COMPILERS = {
    'jax_plugins.xla_cuda13': ('nvidia-cuda-nvcc',),
    'jax_plugins.xla_cuda12': ('nvidia-cuda-nvcc-cu12',),
}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler made of a step, for each GPU.

    Attributes:
      name: a hash of what was compiled and for what.
      arguments: bytes of the state and the batch.
      temporaries: bytes on top of that while it runs.
      program: its kernels and messages.
      traced: the messages that the code asks for.
      table: the messages beside their formulas.
      seconds: what compiling took.
    """

    name: str
    arguments: int
    temporaries: int
    program: GpuProgram
    traced: list[Message]
    table: str
    seconds: float

    @property
    def memory(self) -> int:
        """Bytes that the step needs; its results take the place of its arguments."""
        return self.arguments + self.temporaries


def compile_for_gpus(
    config: Config, topology: str, *, num_classes: int, kept: Collection[str] = (), target: pathlib.Path | None = None
) -> dict[str, Any]:
    """Compiles the config's step for `topology`, 'h100:2x4', which takes seconds; what comes back is as JSON has it.

    Args:
      config, topology, num_classes: the step, the GPUs and the outputs of fc8.
      kept: names of programs that are not compiled again: of such a one only the name comes back.
      target: a text of what the GPU is, in place of the one that comes with the package.

    Raises:
      InputError: there is no compiler, mesh and topology do not go together, or the compiler does not take the target.
    """
    hosts, gpus = parse_hosts(topology)
    check_compiler()
    _check_mesh(config, topology, hosts * gpus)
    path = target or find_target(get_gpu(topology))
    request = {
        'config': dataclasses.asdict(config),
        'hosts': hosts,
        'gpus': gpus,
        'classes': num_classes,
        'target': path.read_text(),
        'kept': [*kept],
    }
    with tempfile.TemporaryDirectory() as folder:
        asked, answer, said = (pathlib.Path(folder) / name for name in ('request.json', 'response.json', 'stderr.txt'))
        asked.write_text(json.dumps(request))
        with said.open('w') as stderr:
            code = subprocess.run(
                [sys.executable, '-m', 'alexnet_jax.communication.gpu_worker', str(asked), str(answer)],
                env=os.environ | _make_environment(),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            ).returncode
        where = f'--topology={topology}'
        if code == 0:
            found = json.loads(answer.read_text())
            if 'refused' in found:
                raise InputError(f'{where}: the compiler does not take the target {path.name}: {found["refused"]}')
            if 'wrong' in found:
                raise InputError(f'{where}: {found["wrong"]}')
            return found
        if code < 0:
            ended = signal.Signals(-code)
            outside = ended in (signal.SIGKILL, signal.SIGTERM)  # as for want of memory
            how = (
                f'by {ended.name}{"" if outside else f" in the compiler, which does not check the target {path.name}"}'
            )
            raise InputError(f'{where}: the process ended {how}{_find_last_words(said.read_text(errors="replace"))}')
        raise RuntimeError(f'{where}: {said.read_text(errors="replace")}')


def parse_compiled(found: dict[str, Any]) -> Compiled:
    """Returns what `compile_for_gpus` gave of a program that was not kept."""
    traced = [Message(**message) for message in found['traced']]
    return Compiled(**{**found, 'program': from_json(found['program']), 'traced': traced})


def check_compiler() -> None:
    """Checks that a compiler for GPUs is installed; `InputError` with the line that installs one."""
    for plugin, packages in _COMPILERS.items():
        if _is_importable(plugin) and all(map(_is_installed, packages)):
            return
    raise InputError("--topology needs the GPU compiler: pip install 'alexnet-jax[gpu-compiler]'")


def _is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # no plugin at all
        return False


def _is_installed(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def _check_mesh(config: Config, topology: str, gpus: int) -> None:
    wanted = config.mesh[0] * config.mesh[1]
    if wanted != gpus:
        mesh = f'a mesh of {config.mesh[0]}x{config.mesh[1]}'
        raise InputError(
            f'--topology={topology} has {gpus} GPUs and {mesh} needs {wanted}: use --config.mesh=DATA,TOWER'
        )


def _make_environment() -> dict[str, str]:
    package_parent = str(pathlib.Path(alexnet_jax.__file__).parents[1])  # so that the process imports this copy
    path = os.pathsep.join(filter(None, [package_parent, os.environ.get('PYTHONPATH')]))
    return {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': path}


def _find_last_words(said: str) -> str:
    """Finds what XLA says before it ends a process: a line that starts with F, of fatal."""
    fatal = re.findall(r'^F\d+ .*?\] (.*)$', said, re.MULTILINE)
    return f': {fatal[-1][:300]}' if fatal else ''
