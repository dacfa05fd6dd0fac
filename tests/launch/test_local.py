"""The launcher, with small programs in place of training: how many it starts, what it hands on, what it makes of codes.

With training itself it is tested in tests/faults.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

import commands
import pytest

# Writes its flags to FOLDER/START.INDEX and leaves with what --codes says for this start and index; 't' waits for
# SIGTERM and then leaves with 76, 'd' does not and dies of it, 'k' kills itself.
PROGRAM = """
import os, pathlib, signal, sys, time
given = dict(argument[2:].split('=', 1) for argument in sys.argv[1:])
folder, index = pathlib.Path(given['folder']), int(given['process_id'])
start = 0
while (folder / f'{start}.{index}').exists():
    start += 1
(folder / f'{start}.{index}').write_text(repr(given))
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
                *(sys.executable, '-m', 'launch.local', '--module=program', '--pause=0', *options, '--'),
                *(f'--folder={tmp_path}', f'--codes={codes}'),
            ],
            cwd=commands.ROOT,
            env=os.environ | {'PYTHONPATH': str(tmp_path)},
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def end(process):
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def starts(folder):
    return sorted(path.name for path in pathlib.Path(folder).glob('[0-9].[0-9]'))


def test_it_starts_so_many_with_one_meeting_point(launch, tmp_path):
    assert end(launch('--processes=3', codes='0,0,0')) == (0, '')
    assert starts(tmp_path) == ['0.0', '0.1', '0.2']
    given = [eval((tmp_path / name).read_text()) for name in starts(tmp_path)]
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
        ('0,143', 75),  # left at a second signal
    ],
)
def test_the_code_is_that_of_the_process_that_failed_by_itself(launch, codes, code):
    assert end(launch('--processes=2', codes=codes))[0] == code


def test_after_a_loss_it_starts_again_with_the_next_number(launch, tmp_path):
    code, err = end(launch('--processes=2,1', '--restarts=3', codes='75,k/k/0'))
    assert code == 0
    assert starts(tmp_path) == ['0.0', '0.1', '1.0', '2.0']
    assert err.splitlines() == [
        'launch.local: a process was lost; starting 1 again (2 restarts left)',
        'launch.local: a process was lost; starting 1 again (1 restarts left)',
    ]


def test_restarts_end(launch, tmp_path):
    code, _ = end(launch('--processes=1', '--restarts=2', codes='75/75/75/75'))
    assert code == 75
    assert starts(tmp_path) == ['0.0', '1.0', '2.0']


@pytest.mark.parametrize('codes', ['1,75', '76,76'])
def test_an_error_or_a_wish_is_no_reason_to_start_again(launch, tmp_path, codes):
    end(launch('--processes=2', '--restarts=2', codes=codes))
    assert starts(tmp_path) == ['0.0', '0.1']


@pytest.fixture
def terminal():
    """Processes started now have the usual way with its loss, also where nohup started the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures('terminal')
@pytest.mark.parametrize(
    ('number', 'codes'),
    [(signal.SIGTERM, 't,t'), (signal.SIGHUP, 't,t'), (signal.SIGTERM, 'd,d')],
)
def test_a_signal_is_handed_on_and_the_code_says_so(launch, tmp_path, number, codes):
    process = launch('--processes=2', '--restarts=1', codes=codes)
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob('ready*'))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    assert end(process) == (76, '')


def test_a_signal_before_the_next_start_is_heard(launch, tmp_path):
    process = launch('--processes=1', '--restarts=3', '--pause=50', codes='75/0')
    assert process.stderr.readline().startswith('launch.local: a process was lost')
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 76
    assert starts(tmp_path) == ['0.0']


@pytest.mark.parametrize('processes', ['none', '0', '2,x', ''])
def test_a_number_that_is_none_is_one_line(launch, processes):
    code, err = end(launch(f'--processes={processes}', codes='0'))
    assert code == 1
    assert err.startswith('error: --processes=') and err.count('\n') == 1
