"""Settings of glibc's memory allocator for large programs on CPU: keep what was allocated, instead of giving it back.

XLA:CPU allocates the temporary memory of every step anew, 1.3 to 1.6 GB for the full network and 128 images. By default
glibc maps such a block from the system and unmaps it when it is freed, so that each step touches some 350,000 fresh
pages, every one a fault that the kernel answers by clearing it. Imports nothing but the standard library, because the
settings have to be made before jax (or numpy, or torch) allocates.
"""

from __future__ import annotations

import ctypes
import platform

# mallopt's parameters (malloc.h) and what they are set to; mallopt(3) describes them.
_SETTINGS = {
    -8: 1,  # M_ARENA_MAX: one heap for all threads, so that memory freed by one can be used by any
    -4: 0,  # M_MMAP_MAX: large blocks come from the heap too, never from a mapping of their own
    -1: -1,  # M_TRIM_THRESHOLD: never shrink the heap (the value is read as unsigned, the largest)
    -2: 2**28,  # M_TOP_PAD: grow it by at least 256 MiB, in bytes
}


def has_glibc() -> bool:
    """Whether this process runs on glibc, whose allocator `tune_allocator` can set."""
    return platform.libc_ver()[0] == 'glibc'


def tune_allocator() -> bool:
    """Makes this process keep freed memory for its next use; call it before importing jax.

    The process then holds its largest use of memory until it ends. Returns False, and does nothing, where the C library
    is not glibc (macOS, Windows, musl).
    """
    if not has_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(parameter, value) == 1 for parameter, value in _SETTINGS.items())


def release_free_memory() -> None:
    """Gives freed memory back to the system once, whatever was set; does nothing where the C library is not glibc."""
    if has_glibc():
        ctypes.CDLL(None).malloc_trim(0)
