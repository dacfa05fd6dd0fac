"""What a command asks of the machine: glibc's allocator, virtual CPU devices, compiler options, the compilation cache.

Imports nothing heavy: the allocator must be set before jax (or numpy, or torch) allocates.

XLA:CPU allocates the temporary memory of every step anew, 1.3 to 1.6 GB for the full network and 128 images. By default
glibc maps such a block from the system and unmaps it when it is freed, so that each step touches some 350,000 fresh
pages, every one a fault that the kernel answers by clearing it.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import platform
from typing import TYPE_CHECKING

from alexnet_jax.errors import InputError

if TYPE_CHECKING:
    from jax.sharding import Mesh

# mallopt's parameters (malloc.h) and what they are set to; mallopt(3) describes them.
_ALLOCATOR = {
    -8: 1,  # M_ARENA_MAX: one heap for all threads, so that memory freed by one can be used by any
    -4: 0,  # M_MMAP_MAX: large blocks come from the heap too, never from a mapping of their own
    -1: -1,  # M_TRIM_THRESHOLD: never shrink the heap (the value is read as unsigned, the largest)
    -2: 2**28,  # M_TOP_PAD: grow it by at least 256 MiB, in bytes
}
_TIMEOUTS = (
    '--xla_cpu_collective_call_warn_stuck_timeout_seconds=120 --xla_cpu_collective_call_terminate_timeout_seconds=1200'
)
_DETERMINISTIC = '--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0'
_DETERMINISTIC_THREADS = 8  # of XLA:CPU's pool: how sums are split follows from it, and so their last bit
# XLA:CPU's newer library runs this network's grouped convolutions 4-5x slower than Eigen, and single matrix products
# faster: it is asked for those alone. GPU and TPU take their compilers' defaults.
CPU_COMPILER_OPTIONS = {
    'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT',
    'xla_disable_hlo_passes': 'cse_barrier_expander',
}


def has_glibc() -> bool:
    """Tells whether this process runs on glibc, whose allocator `tune_allocator` can set."""
    return platform.libc_ver()[0] == 'glibc'


def tune_allocator() -> bool:
    """Makes this process keep freed memory for its next use; call it before importing jax.

    The process then holds its largest use of memory until it ends. Returns False, and does nothing, where the C library
    is not glibc (macOS, Windows, musl).
    """
    return has_glibc() and all(ctypes.CDLL(None).mallopt(*setting) == 1 for setting in _ALLOCATOR.items())


def release_free_memory() -> None:
    """Gives freed memory back to the system once, whatever was set; does nothing where the C library is not glibc."""
    if has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def prepare_backend(mesh: tuple[int, int], *, processes: int = 1, deterministic: bool = False) -> None:
    """Gives the CPU backend as many virtual devices as `mesh` (data, tower) needs, and caches compiled programs.

    Call it before JAX starts its backend. GPUs and TPUs are what they are: `make_mesh` says when there are too few.
    The cache is in $XDG_CACHE_HOME/alexnet_jax/xla (~/.cache by default), or where JAX_COMPILATION_CACHE_DIR says.
    With `deterministic`, GPUs give the same numbers in every run of one layout, at some speed, and CPUs the same with
    every number of cores and of processes. `InputError` where the run's `processes` cannot share the mesh evenly.
    """
    import jax

    devices, rest = divmod(mesh[0] * mesh[1], processes)
    if rest:
        shared = f'a mesh of {mesh[0]}x{mesh[1]} cannot be shared by {processes} processes'
        raise InputError(f'{shared}: use one whose product they divide')
    jax.config.update('jax_num_cpu_devices', devices)
    # Virtual devices share one pool of threads, and each can hold one while it waits at an exchange: with fewer threads
    # than this all of them could wait for a device that finds no thread to run on.
    threads = max(_DETERMINISTIC_THREADS if deterministic else os.cpu_count() or 1, devices + 1)
    os.environ['PJRT_NPROC'] = str(threads) if deterministic else os.environ.get('PJRT_NPROC', str(threads))
    # A process that was stopped for a while, or a slow machine with a large batch, is not stuck after XLA's 40 seconds.
    ours = f'{_TIMEOUTS} {_DETERMINISTIC}' if deterministic else _TIMEOUTS
    os.environ['XLA_FLAGS'] = f'{ours} {os.environ.get("XLA_FLAGS", "")}'.strip()
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache')
        jax.config.update('jax_compilation_cache_dir', str(cache / 'alexnet_jax' / 'xla'))
        # By default JAX keeps what took a second: creating a small network's state takes less.
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)


def is_cpu_mesh(mesh: Mesh) -> bool:
    """Tells whether `mesh` is made of the CPU's virtual devices: the one rule for what differs on them."""
    return mesh.devices.flat[0].platform == 'cpu'


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """Returns what XLA is asked on this mesh's hardware, applied by the code rather than by flags of the user's."""
    return CPU_COMPILER_OPTIONS if is_cpu_mesh(mesh) else {}
