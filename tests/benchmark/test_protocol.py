"""A measured process and the benchmark's side of it."""

import contextlib
import dataclasses
import os
import sys

import pytest

from alexnet_jax.benchmark.protocol import Setting, Worker

SETTING = Setting(batch=3, width=0.5, classes=7, allocator='default')
WORKER = """
import sys
from alexnet_jax.benchmark import protocol
from alexnet_jax.benchmark.sampling import Program
calls = []
def work():
    calls.append(1)
    print('programs print on standard output')
def fail():
    if len(calls) > 2:
        sys.exit('this one breaks')
def make_programs(name, setting):
    print('and so do libraries')
    programs = {'work': Program(work, flop=setting.batch * 10, moved=5), 'fail': Program(fail)}
    return programs, {'setting': repr(setting), 'name': name}
protocol.run_worker(make_programs)
"""


@pytest.fixture
def start(tmp_path):
    """Starts a script as a worker; closed at the end."""
    with contextlib.ExitStack() as stack:

        def start(script, setting):
            (tmp_path / 'worker.py').write_text(script)
            environment = {'PYTHONPATH': os.pathsep.join(sys.path)}
            worker = Worker('it', [str(tmp_path / 'worker.py'), 'some'], setting, environment=environment)
            stack.callback(worker.close)
            return worker

        yield start


@pytest.fixture
def worker(start):
    return start(WORKER, SETTING)


def test_worker_lists_its_programs_and_samples_them(worker):
    worker.wait_until_ready()
    assert worker.programs == {'work': {'flop': 30, 'moved': 5}, 'fail': {'flop': 0, 'moved': 0}}
    assert worker.versions == {'setting': repr(SETTING), 'name': 'some'}
    sample = worker.sample('work', seconds=0)
    assert sample.calls == 1
    assert sample.seconds > 0
    assert worker.sample('work', seconds=0.05).calls > 1


def test_worker_that_breaks_raises_with_its_output(worker):
    worker.wait_until_ready()  # warmed up: two calls
    worker.sample('work', seconds=0)
    with pytest.raises(RuntimeError, match=r'it ended with code 1 .*\n(.*\n)*this one breaks'):
        worker.sample('fail', seconds=0)


def test_closed_worker_has_ended(worker):
    worker.wait_until_ready()
    worker.close()
    assert worker._process.poll() is not None


@pytest.mark.parametrize(('allocator', 'refused'), [('tuned', True), ('default', False)])
def test_run_worker_refuses_an_allocator_that_cannot_be_tuned(start, allocator, refused):
    untunable = 'from alexnet_jax.benchmark import protocol\nprotocol.tune_allocator = lambda: False\n'
    worker = start(untunable + WORKER, dataclasses.replace(SETTING, allocator=allocator))
    if refused:
        with pytest.raises(RuntimeError, match='cannot be tuned'):
            worker.wait_until_ready()
    else:
        worker.wait_until_ready()
