"""A measured process and the benchmark's side of it, talking."""

import contextlib
import dataclasses
import os
import sys

import pytest

from alexnet_jax.benchmark.protocol import Setting, Subject

SETTING = Setting(batch=3, width=0.5, classes=7, allocator='default')
WORKER = """
import sys
from alexnet_jax.benchmark import protocol
from alexnet_jax.benchmark.sampling import Program
setting, answers = protocol.begin(sys.argv[1])
print('libraries print on standard output')
calls = []
def work():
    calls.append(1)
    print('and so do programs')
def fail():
    if len(calls) > 2:
        sys.exit('this one breaks')
programs = {'work': Program(work, flop=setting.batch * 10, moved=5), 'fail': Program(fail)}
protocol.serve(answers, programs, versions={'setting': repr(setting)})
"""


@pytest.fixture
def start(tmp_path):
    """Starts a script as a subject; closed at the end."""
    with contextlib.ExitStack() as stack:

        def start(script, setting):
            (tmp_path / 'worker.py').write_text(script)
            environment = {'PYTHONPATH': os.pathsep.join(sys.path)}
            subject = Subject('it', [str(tmp_path / 'worker.py')], setting, environment=environment)
            stack.callback(subject.close)
            return subject

        yield start


@pytest.fixture
def subject(start):
    return start(WORKER, SETTING)


def test_a_subject_says_what_it_does_and_does_it(subject):
    subject.wait()
    assert subject.programs == {'work': {'flop': 30, 'moved': 5}, 'fail': {'flop': 0, 'moved': 0}}
    assert subject.versions == {'setting': repr(SETTING)}
    sample = subject.sample('work', seconds=0)
    assert sample.calls == 1
    assert sample.seconds > 0
    assert subject.sample('work', seconds=0.05).calls > 1


def test_a_subject_that_breaks_is_told_with_its_words(subject):
    subject.wait()  # warmed up: two calls
    subject.sample('work', seconds=0)
    with pytest.raises(RuntimeError, match=r'it ended with code 1 .*\n(.*\n)*this one breaks'):
        subject.sample('fail', seconds=0)


def test_a_closed_subject_has_ended(subject):
    subject.wait()
    subject.close()
    assert subject._process.poll() is not None


@pytest.mark.parametrize(('allocator', 'refused'), [('tuned', True), ('default', False)])
def test_an_allocator_that_cannot_be_tuned_is_not_passed_over(start, allocator, refused):
    untunable = 'from alexnet_jax.benchmark import protocol\nprotocol.tune_allocator = lambda: False\n'
    subject = start(untunable + WORKER, dataclasses.replace(SETTING, allocator=allocator))
    if refused:
        with pytest.raises(RuntimeError, match='cannot be tuned'):
            subject.wait()
    else:
        subject.wait()
