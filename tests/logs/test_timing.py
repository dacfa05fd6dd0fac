"""The account of a start, against clocks outside the process, and a cache whose contents are known."""

import json
import os
import subprocess
import sys
import time

import cli
import pytest

from alexnet_jax.logs.timing import StartupTimer

PROGRAM = """
import json, sys, time
time.sleep(0.3)
from alexnet_jax.logs.timing import StartupTimer
start_up = StartupTimer()
start_up.lap('imports')
import jax
time.sleep(0.1)
start_up.lap('jax')
start_up.compile(jax.jit(lambda x: x + 1).lower(1.0))
start_up.lap('step')
print(json.dumps([start_up.format_line(), start_up.to_json()]))
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def starts(tmp_path_factory):
    """[(line, account, seconds seen from outside)] of PROGRAM with an empty cache, with the same again, without."""
    folder = str(tmp_path_factory.mktemp('cache'))

    def measure(*, cache):
        environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
        environment |= {'JAX_COMPILATION_CACHE_DIR': folder} if cache else {'JAX_ENABLE_COMPILATION_CACHE': 'false'}
        began = time.monotonic()
        out = subprocess.run(
            [sys.executable, '-c', PROGRAM], cwd=cli.ROOT, env=environment, stdout=subprocess.PIPE, check=True
        )
        return *json.loads(out.stdout), time.monotonic() - began

    return [measure(cache=cache) for cache in (True, True, False)]


def test_startup_timer_begins_with_the_process_and_its_parts_are_the_whole(starts):
    line, found, outside = starts[2]
    assert list(found['parts']) == ['imports', 'jax', 'compile', 'step']
    assert found['parts']['imports'] >= 0.3  # slept before the account was opened
    assert found['parts']['jax'] >= 0.1
    assert found['total'] == pytest.approx(sum(found['parts'].values()), abs=0.004)  # rounded to milliseconds
    assert 0.4 <= found['total'] <= outside + 0.02  # Linux tells a process's start to 0.01 s
    total, imports = (f'{seconds:.1f}' for seconds in (found['total'], found['parts']['imports']))
    assert line.startswith(f'first step after {total} s: imports {imports}, jax ')


def test_startup_timer_tells_what_the_cache_had(starts):
    assert [found['compile_cached'] for _, found, _ in starts] == [False, True, False]
    assert ['compile (cached) ' in line for line, _, _ in starts] == [False, True, False]


def test_startup_timer_without_proc_begins_where_it_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr('alexnet_jax.logs.timing.STAT', tmp_path / 'stat')
    began = time.perf_counter()
    start_up = StartupTimer()
    start_up.lap('imports')
    assert 0 <= start_up.to_json()['total'] <= time.perf_counter() - began + 0.001
