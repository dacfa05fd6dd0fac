"""`alexnet launch` with small programs in place of training: its processes, its signals, its exit codes.

With training itself it is tested in tests/faults.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import cli
import pytest

# Writes its flags to FOLDER/START.INDEX and exits with the code that --codes has for this start and index: 't' waits
# for SIGTERM and then exits with 76, 'd' has no handler and dies of it, 'k' kills itself.
PROGRAM = """
import json, os, pathlib, signal, sys, time
given = dict(argument[2:].split('=', 1) for argument in sys.argv[1:])
folder, index = pathlib.Path(given['folder']), int(given['process_id'])
start = 0
while (folder / f'{start}.{index}').exists():
    start += 1
(folder / f'{start}.{index}').write_text(json.dumps(given))
code = given['codes'].split('/')[start].split(',')[index]
if code == 't':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(76))
    (folder / f'ready{index}').write_text('')
    time.sleep(60)
elif code == 'd':
    (folder / f'ready{index}').write_text('')
    time.sleep(60)
elif code == 'k':
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(code))
"""


@pytest.fixture
def launch(tmp_path):
    (tmp_path / 'program.py').write_text(PROGRAM)

    def start(*options, codes):
        return subprocess.Popen(
            [
                *(sys.executable, '-m', 'alexnet_jax', 'launch', '--module=program', '--pause=0', *options, '--'),
                *(f'--folder={tmp_path}', f'--codes={codes}'),
            ],
            cwd=cli.ROOT,
            env=os.environ | {'PYTHONPATH': str(tmp_path)},
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def wait_for_end(process):
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def list_starts(folder):
    return sorted(path.name for path in pathlib.Path(folder).glob('[0-9].[0-9]'))


def test_launch_starts_all_with_one_coordinator(launch, tmp_path):
    assert wait_for_end(launch('--processes=3', codes='0,0,0')) == (0, '')
    assert list_starts(tmp_path) == ['0.0', '0.1', '0.2']
    given = [json.loads((tmp_path / name).read_text()) for name in list_starts(tmp_path)]
    assert {flags['processes'] for flags in given} == {'3'}
    assert [flags['process_id'] for flags in given] == ['0', '1', '2']
    assert len({flags['coordinator'] for flags in given}) == 1
    assert given[0]['coordinator'].startswith('127.0.0.1:')


@pytest.mark.parametrize(
    ('codes', 'code'),
    [
        ('0,1', 1),  # an error of its own
        ('75,1', 1),  # beside those that lost it
        ('75,k', 75),  # killed: the others have lost it
        ('k,k', 75),
        ('75,75', 75),
        ('76,76', 76),
        ('76,75', 76),
        ('0,143', 75),  # exited at a second signal
    ],
)
def test_launch_exits_with_the_code_of_the_process_that_failed_by_itself(launch, codes, code):
    assert wait_for_end(launch('--processes=2', codes=codes))[0] == code


def test_launch_restarts_after_a_loss_with_the_next_number(launch, tmp_path):
    code, err = wait_for_end(launch('--processes=2,1', '--restarts=3', codes='75,k/k/0'))
    assert code == 0
    assert list_starts(tmp_path) == ['0.0', '0.1', '1.0', '2.0']
    assert err.splitlines() == [
        'alexnet launch: a process was lost; starting 1 again (2 restarts left)',
        'alexnet launch: a process was lost; starting 1 again (1 restarts left)',
    ]


def test_launch_restarts_are_limited(launch, tmp_path):
    code, _ = wait_for_end(launch('--processes=1', '--restarts=2', codes='75/75/75/75'))
    assert code == 75
    assert list_starts(tmp_path) == ['0.0', '1.0', '2.0']


@pytest.mark.parametrize('codes', ['1,75', '76,76'])
def test_launch_does_not_restart_after_an_error_or_an_interruption(launch, tmp_path, codes):
    wait_for_end(launch('--processes=2', '--restarts=2', codes=codes))
    assert list_starts(tmp_path) == ['0.0', '0.1']


@pytest.fixture
def terminal():
    """Restores the default action of SIGHUP for processes started now, also where nohup started the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures('terminal')
@pytest.mark.parametrize(
    ('number', 'codes'),
    [(signal.SIGTERM, 't,t'), (signal.SIGHUP, 't,t'), (signal.SIGTERM, 'd,d')],
)
def test_launch_forwards_a_signal_and_exits_as_interrupted(launch, tmp_path, number, codes):
    process = launch('--processes=2', '--restarts=1', codes=codes)
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob('ready*'))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    assert wait_for_end(process) == (76, '')


def test_launch_stops_at_a_signal_between_restarts(launch, tmp_path):
    process = launch('--processes=1', '--restarts=3', '--pause=50', codes='75/0')
    assert process.stderr.readline().startswith('alexnet launch: a process was lost')
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 76
    assert list_starts(tmp_path) == ['0.0']


@pytest.mark.parametrize('processes', ['none', '0', '2,x', ''])
def test_launch_refuses_invalid_process_counts(launch, processes):
    code, err = wait_for_end(launch(f'--processes={processes}', codes='0'))
    assert code == 1
    assert err.startswith('error: --processes=') and err.count('\n') == 1
