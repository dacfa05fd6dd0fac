"""The tuned allocator against the system's own count of page faults."""

import pathlib
import subprocess
import sys

import pytest

from alexnet_jax.sharding import backend as allocator

FAULTS = """
import ctypes, resource, sys
from alexnet_jax.sharding import backend as allocator
if 'tune' in sys.argv:
    assert allocator.tune_allocator()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
size = 320 * 2**20  # more than the 256 MiB by which the heap grows, which trimming would leave
def once():
    block = libc.malloc(size)
    libc.memset(block, 1, size)
    libc.free(block)
once()
if 'release' in sys.argv:
    allocator.release_free_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, *{'jax', 'numpy'} & set(sys.modules))
"""


@pytest.mark.skipif(not allocator.has_glibc(), reason="glibc's allocator")
def test_freed_memory_is_used_again_without_page_faults_until_it_is_released():
    def faults(*words):
        command = [sys.executable, '-c', FAULTS, *words]
        root = pathlib.Path(__file__).parents[2]
        return int(subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout)

    assert faults() > 30  # huge pages may make few of many
    assert faults('tune') < 10
    assert faults('tune', 'release') > 30


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(allocator.platform, 'libc_ver', lambda: ('', ''))
    monkeypatch.setattr(allocator.ctypes, 'CDLL', lambda name: pytest.fail('called the C library'))
    assert allocator.tune_allocator() is False
    allocator.release_free_memory()
