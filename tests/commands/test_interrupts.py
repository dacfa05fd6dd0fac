"""Ctrl-C and repeated runs in one process, of real commands: what they print, and how they end."""

import os
import signal
import subprocess
import sys
import time

import cli
import pytest

# Waits for a moment of the command, tells it, and goes on: {moment} is code that runs inside alexnet_jax.
PROGRAM = """
import signal, sys, threading, time
from alexnet_jax.__main__ import main
{setup}
sys.argv = ['alexnet', *sys.argv[1:]]
main()
"""
MOMENTS = {
    'import': """
import builtins
real = builtins.__import__
def slow(name, *given):
    if name == 'absl.app' or (name == 'absl' and 'app' in (given[2] or ())):
        print('now', flush=True)
        try:
            time.sleep(60)
        except BaseException as error:
            raise ImportError('half a module') from error
    return real(name, *given)
builtins.__import__ = slow
""",
    'native': """
import ctypes
from alexnet_jax.evaluation import landmarks
def stuck(_):
    print('now', flush=True)
    ctypes.CDLL(None).poll(None, 0, 60_000)  # as XLA's compiler: no instruction of Python's until its end
landmarks.compare_run = stuck
""",
    'python': """
import pathlib
from alexnet_jax import files
from alexnet_jax.evaluation import landmarks
def writes(folder):
    with files.replacing(folder / 'file') as file:
        print('now', flush=True)
        time.sleep(60)
landmarks.compare_run = writes
""",
}


@pytest.mark.parametrize('moment', MOMENTS)
def test_interrupts_end_a_command_with_one_line_wherever_they_strike(moment, tmp_path):
    process = subprocess.Popen(
        [sys.executable, '-c', PROGRAM.format(setup=MOMENTS[moment]), 'compare', f'--workdir={tmp_path}'],
        cwd=cli.ROOT,
        env=cli.environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests run in the background of a script, the shell has them ignore it, and what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout.readline() == 'now\n'
    time.sleep(0.05)
    start = time.monotonic()
    for _ in range(2):  # as `timeout` sends it: to the process, and to its group
        os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - start < 2
    assert (process.returncode, err) == (130, 'interrupted: the same command starts it again\n')
    assert list(tmp_path.iterdir()) == []  # no half of a file


TWICE = """
import runpy, sys
from absl import flags
from alexnet_jax.weights import convert
convert.open_source = lambda **given: given
def work(given, to, output):
    if 'lazy' not in flags.FLAGS:
        flags.DEFINE_bool('lazy', True, '')  # as Grain does, which is imported late
    return f'{given["weights"]} {given["step"]} {to} {flags.FLAGS.lazy}'
convert.convert = work
for run in (
    'train --config=configs/two_device.py --config.steps=many',
    'convert --weights=a --step=3 --to=x --output=y',
    'convert --weights=b --to=y --output=y',
    'train --config=configs/two_device.py --config.width=9',
    'checkpoint list --workdir=none',
    'compare',
):
    sys.argv = ['x', *run.split()]
    try:
        runpy.run_module('alexnet_jax', run_name='__main__', alter_sys=True)
    except SystemExit as error:
        print(error.code)
sys.argv = ['x', '--config=configs/two_device.py', '--config.width=9']
runpy.run_module('alexnet_jax.main', run_name='__main__', alter_sys=True)
"""


@pytest.mark.slow
def test_run_verb_gives_each_run_in_one_process_flags_of_its_own(tmp_path):
    """As a notebook's `%run -m alexnet_jax VERB ...`: other values, and other verbs with flags of the same names."""
    done = subprocess.run(
        [sys.executable, '-c', TWICE], cwd=cli.ROOT, env=cli.environment(tmp_path), capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith('error: flag --config.steps=many'), done.stderr
    assert lines[1:6] == ['a 3 x True', 'None', 'b None y True', 'None', '1']
    assert lines[6].startswith('error: none') and lines[7].startswith('error: flag --workdir')
    assert len(lines) == 8
    width = 'error: config.width is 9.0: it must be at least 0.001 and at most 4'
    assert done.stderr.splitlines() == [width, width]
