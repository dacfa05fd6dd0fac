"""What a command asks of the machine: glibc's allocator, virtual CPU devices, compiler options, the compilation cache.

Imports nothing heavy: the allocator must be set before jax (or numpy, or torch) allocates.

XLA:CPU allocates the temporary memory of every step anew, 1.3 to 1.6 GB for the full network and 128 images. By default
glibc maps such a block from the system and unmaps it when it is freed, so that each step touches some 350,000 fresh
pages, every one a fault that the kernel answers by clearing it.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import tempfile
from typing import TYPE_CHECKING

from alexnet_jax.console import info
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
_CPUINFO = pathlib.Path('/proc/cpuinfo')
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
    The cache is where `find_program_cache` says; where nothing can be kept there is none, and one line says so.
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
    given = os.environ.get('XLA_FLAGS', '')
    if not given.startswith(ours):  # else those of a run that this process made before
        os.environ['XLA_FLAGS'] = f'{ours} {given}'.strip()
    wanted = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    cache = find_program_cache() if wanted else None
    jax.config.update('jax_compilation_cache_dir', cache)
    if cache and 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        # By default JAX keeps what took a second: creating a small network's state takes less.
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)


def find_program_cache() -> str | None:
    """Finds the folder that compiled programs are kept in, and makes it; None, and one line, where none can be written.

    It is what JAX_COMPILATION_CACHE_DIR says, also an address such as gs://..., or a folder below
    $XDG_CACHE_HOME/alexnet_jax/xla (~/.cache by default) of this machine's kind: hosts may share a home and still not
    run one another's programs.
    """
    chosen = os.environ.get('JAX_COMPILATION_CACHE_DIR')
    if chosen is not None:
        return chosen if not chosen or '://' in chosen or _can_keep(chosen) else None
    try:
        base = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache')
    except RuntimeError:  # neither HOME nor an entry of this user's in the system's list
        _warn_not_kept('this user has no home directory', 'XDG_CACHE_HOME')
        return None
    folder = base / 'alexnet_jax' / 'xla' / _describe_machine()
    return str(folder) if _can_keep(folder) else None


def _describe_machine() -> str:
    """Names what compiled programs depend on: 'jaxlib-0.10.2-x86_64-0123456789ab', the last a hash of what CPUs can do.

    XLA compiles for the CPU that it runs on: a host that loads another one's program can be ended by an instruction
    that it does not have.
    """
    told = ('vendor_id', 'cpu family', 'model', 'flags', 'CPU implementer', 'CPU part', 'CPU variant', 'Features')
    try:
        lines = _CPUINFO.read_text().splitlines()
    except FileNotFoundError:  # not Linux
        lines = []
    # Cores may differ from one another; what they can do comes in no order.
    facts = {' '.join(sorted(line.split())) for line in lines if line.partition(':')[0].strip() in told}
    digest = hashlib.sha256('\n'.join(sorted(facts) or [platform.processor()]).encode()).hexdigest()[:12]
    return f'jaxlib-{importlib.metadata.version("jaxlib")}-{platform.machine()}-{digest}'


@functools.cache  # says it once for each folder, however often a process prepares its backend
def _can_keep(folder: str | os.PathLike[str]) -> bool:
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        default = 'JAX_COMPILATION_CACHE_DIR' not in os.environ
        variable = 'XDG_CACHE_HOME' if default else 'JAX_COMPILATION_CACHE_DIR'
        _warn_not_kept(f'{os.fspath(folder)} cannot be written ({error.strerror})', variable)
        return False


@functools.cache
def _warn_not_kept(reason: str, variable: str) -> None:
    remedy = f'set {variable} to a folder to keep them in'
    info(f'compiled programs are not kept, each start compiles anew: {reason}; {remedy}')


def get_platform(mesh: Mesh) -> str:
    """Returns what `mesh` is made of, 'cpu', 'gpu' or 'tpu': devices that are not here are of their kind too."""
    found = mesh.devices.flat[0].platform
    return 'gpu' if found in ('cuda', 'rocm') else found


def is_cpu_mesh(mesh: Mesh) -> bool:
    """Tells whether `mesh` is made of the CPU's virtual devices: the one rule for what differs on them."""
    return get_platform(mesh) == 'cpu'


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """Returns what XLA is asked on this mesh's hardware, applied by the code rather than by flags of the user's."""
    return CPU_COMPILER_OPTIONS if is_cpu_mesh(mesh) else {}
