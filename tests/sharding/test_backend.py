"""The tuned allocator against the system's own count of page faults; the cache of programs on homes of all kinds."""

import importlib.metadata
import os
import pwd
import subprocess
import sys

import cli
import jax
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


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """No variable that says where programs are kept; nothing said yet."""
    for name in ('HOME', 'XDG_CACHE_HOME', 'JAX_COMPILATION_CACHE_DIR'):
        monkeypatch.delenv(name, raising=False)
    backend._can_keep.cache_clear()
    backend._warn_not_kept.cache_clear()
    return monkeypatch


@pytest.fixture
def nobody(environment):
    """A user whom the system does not know, as in a container that runs under a number."""

    def unknown(uid):
        raise KeyError(uid)

    environment.setattr(pwd, 'getpwuid', unknown)
    return environment


NOT_KEPT = 'compiled programs are not kept, each start compiles anew: '


def test_find_program_cache_without_a_home_says_once_what_to_set_and_that_works(nobody, tmp_path, capsys):
    assert [backend.find_program_cache() for _ in range(3)] == [None] * 3
    reason = 'this user has no home directory; set XDG_CACHE_HOME to a folder to keep them in'
    assert capsys.readouterr().err == f'{NOT_KEPT}{reason}\n'
    nobody.setenv('XDG_CACHE_HOME', str(tmp_path / 'new'))
    assert backend.find_program_cache().startswith(str(tmp_path / 'new/alexnet_jax/xla/'))
    assert os.listdir(backend.find_program_cache()) == []
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('variable', ['HOME', 'XDG_CACHE_HOME', 'JAX_COMPILATION_CACHE_DIR'])
def test_find_program_cache_says_once_that_a_folder_cannot_be_written(environment, variable, tmp_path, capsys):
    (tmp_path / 'file').touch()  # root may write anywhere, but not below a file
    environment.setenv(variable, str(tmp_path / 'file/below'))
    assert [backend.find_program_cache() for _ in range(3)] == [None] * 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'{NOT_KEPT}{tmp_path}/file')
    remedy = 'XDG_CACHE_HOME' if variable == 'HOME' else variable
    assert line.endswith(f' cannot be written (Not a directory); set {remedy} to a folder to keep them in')
    environment.setenv(remedy, str(tmp_path))
    assert backend.find_program_cache().startswith(str(tmp_path))


def test_find_program_cache_leaves_the_user_s_own_place_as_it_is(environment, tmp_path):
    for place in ('', 'gs://bucket/programs', str(tmp_path / 'own')):  # '': JAX's way to have none
        environment.setenv('JAX_COMPILATION_CACHE_DIR', place)
        assert backend.find_program_cache() == place


def test_prepare_backend_runs_without_a_cache_where_none_can_be_kept(nobody):
    kept = jax.config.jax_compilation_cache_dir, jax.config.jax_num_cpu_devices
    nobody.setenv('XLA_FLAGS', os.environ['XLA_FLAGS'])
    try:
        backend.prepare_backend((4, 2))
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update('jax_compilation_cache_dir', kept[0])
    assert jax.config.jax_num_cpu_devices == kept[1]


def test_find_program_cache_is_another_for_other_cpus_and_versions(environment, tmp_path, monkeypatch):
    """Two hosts, one home: the kernel's own words for a machine, its cores and flags in any order, and for others."""
    environment.setenv('HOME', str(tmp_path))
    core = 'processor : {}\nvendor_id : GenuineIntel\ncpu family : 6\nmodel : {}\ncpu MHz : {}\nflags : {}\n\n'
    hosts = {
        'one': core.format(0, 85, 2000, 'fpu avx2 avx512f') + core.format(1, 85, 2000, 'fpu avx2 avx512f'),
        'same, at another moment': core.format(0, 85, 3100.5, 'avx512f fpu avx2'),
        'without AVX-512': core.format(0, 85, 2000, 'fpu avx2'),
        'newer': core.format(0, 143, 2000, 'fpu avx2 avx512f'),
        'ARM': 'processor : 0\nFeatures : fp asimd sve\nCPU implementer : 0x41\nCPU part : 0xd40\n',
        'ARM without SVE': 'processor : 0\nFeatures : fp asimd\nCPU implementer : 0x41\nCPU part : 0xd40\n',
    }
    found = {}
    for name, text in hosts.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(backend, '_CPUINFO', tmp_path / name)
        found[name] = backend.find_program_cache()
    assert found.pop('same, at another moment') == found['one']
    assert len({*found.values()}) == len(found)
    version = importlib.metadata.version
    assert all(f'/.cache/alexnet_jax/xla/jaxlib-{version("jaxlib")}-' in path for path in found.values())
    monkeypatch.setattr(backend.importlib.metadata, 'version', lambda name: '99.0')
    assert '/jaxlib-99.0-' in backend.find_program_cache()
    monkeypatch.setattr(backend, '_CPUINFO', tmp_path / 'absent')  # not Linux
    assert backend.find_program_cache()
