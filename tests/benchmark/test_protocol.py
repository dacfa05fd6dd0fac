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


def test_worker_samples_its_programs_until_one_breaks(start):
    worker = start(WORKER, SETTING)
    worker.wait_until_ready()  # warmed up: two calls
    assert worker.programs == {'work': {'flop': 30, 'moved': 5}, 'fail': {'flop': 0, 'moved': 0}}
    assert worker.versions == {'setting': repr(SETTING), 'name': 'some'}
    sample = worker.sample('work', seconds=0)
    assert sample.calls == 1
    assert sample.seconds > 0
    assert worker.sample('work', seconds=0.05).calls > 1
    with pytest.raises(RuntimeError, match=r'it ended with code 1 .*\n(.*\n)*this one breaks'):
        worker.sample('fail', seconds=0)


def test_run_worker_refuses_to_tune_an_allocator_that_cannot_be(start):
    untunable = 'from alexnet_jax.benchmark import protocol\nprotocol.tune_allocator = lambda: False\n'
    tuned, default = (
        start(untunable + WORKER, dataclasses.replace(SETTING, allocator=a)) for a in ('tuned', 'default')
    )
    with pytest.raises(RuntimeError, match='cannot be tuned'):
        tuned.wait_until_ready()
    default.wait_until_ready()
    default.close()
    assert default._process.poll() is not None  # a closed worker has ended
