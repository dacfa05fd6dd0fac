"""Sets up JAX's backend for a command, before its first use: virtual CPU devices and the compilation cache."""

from __future__ import annotations

import os
import pathlib

import jax

from alexnet_jax import InputError

_PATIENCE = (
    '--xla_cpu_collective_call_warn_stuck_timeout_seconds=120 --xla_cpu_collective_call_terminate_timeout_seconds=1200'
)
_DETERMINISTIC = '--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0'
_DETERMINISTIC_THREADS = 8  # of XLA:CPU's pool: how sums are split follows from it, and so their last bit


def prepare_backend(mesh: tuple[int, int], *, processes: int = 1, deterministic: bool = False) -> None:
    """Gives the CPU backend as many virtual devices as `mesh` (data, tower) needs, and caches compiled programs.

    GPUs and TPUs are what they are: `make_mesh` says when there are too few. The cache is in
    $XDG_CACHE_HOME/alexnet_jax/xla (~/.cache by default) unless JAX_COMPILATION_CACHE_DIR names another place.

    Args:
      mesh: (data, tower) sizes.
      processes: of the run, which share the mesh evenly.
      deterministic: the same numbers from every run of one layout on GPUs, at some speed; on CPUs the same from every
        number of cores and of processes.

    Raises:
      InputError: the processes cannot share the mesh.
    """
    devices, rest = divmod(mesh[0] * mesh[1], processes)
    if rest:
        raise InputError(
            f'a mesh of {mesh[0]}x{mesh[1]} cannot be shared by {processes} processes: '
            f'use one whose product they divide'
        )
    jax.config.update('jax_num_cpu_devices', devices)
    # Virtual devices share one pool of threads, and each can hold one while it waits at an exchange: with fewer threads
    # than this all of them could wait for a device that finds no thread to run on.
    threads = max(_DETERMINISTIC_THREADS if deterministic else os.cpu_count() or 1, devices + 1)
    if deterministic:
        os.environ['PJRT_NPROC'] = str(threads)
    os.environ.setdefault('PJRT_NPROC', str(threads))
    # A process that was stopped for a while, or a slow machine with a large batch, is not stuck after XLA's 40 seconds.
    ours = f'{_PATIENCE} {_DETERMINISTIC}' if deterministic else _PATIENCE
    os.environ['XLA_FLAGS'] = f'{ours} {os.environ.get("XLA_FLAGS", "")}'.strip()
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache')
        jax.config.update('jax_compilation_cache_dir', str(cache / 'alexnet_jax' / 'xla'))
        # By default JAX keeps what took a second: creating a small network's state takes less.
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
