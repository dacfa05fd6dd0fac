"""Sets up JAX's backend for a command, before its first use: virtual CPU devices and the compilation cache."""

from __future__ import annotations

import os
import pathlib

import jax

_PATIENCE = (
    '--xla_cpu_collective_call_warn_stuck_timeout_seconds=120 --xla_cpu_collective_call_terminate_timeout_seconds=1200'
)


def prepare_backend(mesh: tuple[int, int]) -> None:
    """Gives the CPU backend as many virtual devices as `mesh` (data, tower) needs, and caches compiled programs.

    GPUs and TPUs are what they are: `make_mesh` says when there are too few. The cache is in
    $XDG_CACHE_HOME/alexnet_jax/xla (~/.cache by default) unless JAX_COMPILATION_CACHE_DIR names another place.
    """
    devices = mesh[0] * mesh[1]
    jax.config.update('jax_num_cpu_devices', devices)
    # Virtual devices share one pool of threads, and each can hold one while it waits at an exchange: with fewer threads
    # than this all of them could wait for a device that finds no thread to run on.
    os.environ.setdefault('PJRT_NPROC', str(max(os.cpu_count() or 1, devices + 1)))
    # A process that was stopped for a while, or a slow machine with a large batch, is not stuck after XLA's 40 seconds.
    os.environ['XLA_FLAGS'] = f'{_PATIENCE} {os.environ.get("XLA_FLAGS", "")}'.strip()
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache')
        jax.config.update('jax_compilation_cache_dir', str(cache / 'alexnet_jax' / 'xla'))
        # By default JAX keeps what took a second: creating a small network's state takes less.
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
