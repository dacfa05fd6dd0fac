"""The tuned allocator against the system's own count of page faults."""

import subprocess
import sys

import cli
import pytest

from alexnet_jax.sharding import backend

FAULTS = """
import ctypes, resource, sys
from alexnet_jax.sharding import backend
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
size = 320 * 2**20  # more than the 256 MiB by which the heap grows, which trimming would leave
def count_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    libc.memset(block, 1, size)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(count_faults(), count_faults())
assert backend.tune_allocator()
print(count_faults(), count_faults())
backend.release_free_memory()
print(count_faults())
print(sorted({'jax', 'numpy'} & set(sys.modules)))
"""


@pytest.mark.skipif(not backend.has_glibc(), reason="glibc's allocator")
def test_tune_allocator_uses_freed_memory_again_without_page_faults_until_it_is_released():
    process = subprocess.run([sys.executable, '-c', FAULTS], cwd=cli.ROOT, check=True, capture_output=True, text=True)
    *counts, heavy = process.stdout.splitlines()
    (_, plain), (_, tuned), (released,) = [map(int, line.split()) for line in counts]
    assert plain > 30  # huge pages may make few of many
    assert tuned < 10
    assert released > 30
    assert heavy == '[]'  # it is called before anything that allocates is imported


def test_tune_allocator_does_nothing_without_glibc(monkeypatch):
    monkeypatch.setattr(backend.platform, 'libc_ver', lambda: ('', ''))
    monkeypatch.setattr(backend.ctypes, 'CDLL', lambda name: pytest.fail('called the C library'))
    assert backend.tune_allocator() is False
    backend.release_free_memory()
