"""What a flag's text means, what --help lists, and how a command ends whose output nobody reads."""

import os
import subprocess
import sys

import cli
import pytest

from alexnet_jax.commands.command_line import exit_without_reader, split_paths
from alexnet_jax.training.config import KEYS


def test_split_paths_takes_commas_or_a_flag_for_each(tmp_path):
    (tmp_path / 'rate=0.1,seed=0').mkdir()
    own = str(tmp_path / 'rate=0.1,seed=0')
    assert split_paths(['a,b']) == ['a', 'b']
    assert split_paths(['a', 'b,c']) == ['a', 'b', 'c']
    assert split_paths([own, 'a,b']) == [own, 'a', 'b']
    assert split_paths([f'{own}x,b']) == [str(tmp_path / 'rate=0.1'), 'seed=0x', 'b']
    assert split_paths([]) == split_paths(['']) == []


def test_format_help_lists_the_keys_of_the_config_for_training(program_cache):
    text = cli.run('train', '--help', cache=program_cache).stdout
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith('  --config.')}
    assert list(lines) == [f'--config.{key}' for key in KEYS]
    assert lines['--config.momentum'].split(maxsplit=1)[1] == 'of the update (default: 0.9)'
    assert lines['--config.batch_size'].endswith('images of a step, of all devices together (section 5) (default: 128)')
    assert '(default' not in lines['--config.steps']
    assert '24.0,50.0,78.0)' in text


@pytest.mark.parametrize(
    'command',
    [
        ('-m', 'alexnet_jax', '--help'),
        ('-m', 'alexnet_jax', 'launch', '--help'),
        ('-u', '-m', 'alexnet_jax', 'launch', '--help'),  # print fails, not what flushes
        pytest.param(('-u', '-m', 'alexnet_jax', '--help'), marks=pytest.mark.repeats),
        pytest.param(('-m', 'alexnet_jax.main', '--help'), marks=pytest.mark.repeats),
    ],
)
def test_exit_without_reader_leaves_no_traceback(command):
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, *command], cwd=cli.ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (1, '')


def test_exit_without_reader_keeps_the_error_of_another_pipe():
    with pytest.raises(BrokenPipeError), exit_without_reader():
        raise BrokenPipeError


def test_run_command_prints_names_that_are_not_text():
    program = r"""
import types
from alexnet_jax.commands.command_line import parse_options, run_command
module = types.ModuleType('verb')
module.parse, module.main = parse_options, lambda argv: print('caf\udce9')
run_command(module)
"""
    run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, 'caf\\udce9\n', '')


def test_run_verb_names_the_process_in_one_word():
    """The kernel keeps the name in parentheses among words: of two, not all who read it find the next."""
    code = """
import pathlib, sys, types
from absl import flags
from alexnet_jax.commands.dispatch import run_verb
from alexnet_jax.commands.interrupts import Interrupts
name = lambda argv: print(pathlib.Path('/proc/self/stat').read_text().split()[1])
sys.modules['alexnet_jax.commands.named'] = types.SimpleNamespace(__name__='named', main=name, parse=flags.FLAGS)
run_verb('named', [], Interrupts())
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=cli.ROOT)
    assert done.stdout == '(alexnet-named)\n', done.stderr
