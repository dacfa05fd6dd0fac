"""The Dockerfile without Docker: its steps, run in the order and with the words it has."""

import fnmatch
import itertools
import json
import os
import re
import subprocess

import checkout
import commands
import pytest

LINES = (commands.ROOT / 'Dockerfile').read_text().splitlines()


def instruction(start):
    """The only line of the Dockerfile that starts so, without its first word."""
    (line,) = (line for line in LINES if line.startswith(start))
    return line.partition(' ')[2]


@pytest.fixture
def context(tmp_path):
    """What .dockerignore leaves of the checkout: `COPY . .`."""
    lines = (commands.ROOT / '.dockerignore').read_text().splitlines()
    assert '*' in lines  # everything is out but
    kept = [line[1:] for line in lines if line.startswith('!')]
    names = [path.name for path in commands.ROOT.iterdir()]
    parts = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in kept)]
    assert '.git' not in parts and 'data' not in parts
    return checkout.copy(tmp_path, parts=parts)


def test_the_entry_point_trains_with_what_is_copied(context, tiny_dir, program_cache):
    command = [*checkout.entrypoint(), '--config=configs/two_device.py', f'--config.data_dir={tiny_dir}']
    ((code, error),) = checkout.run_together(
        [*command, *checkout.TINY, '--workdir=runs/a'], [checkout.environment(program_cache)], cwd=context
    )
    assert code == 0, error
    assert json.loads((context / 'runs/a/result.json').read_text())['steps'] == 2


@pytest.mark.parametrize('extra', ['', 'cuda', 'tpu'])
def test_the_argument_chooses_what_is_installed_besides(context, extra, tmp_path):
    """The RUN line itself, with a pip that only tells what it was given."""
    bin = tmp_path / 'bin'
    bin.mkdir()
    (bin / 'pip').write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (bin / 'pip').chmod(0o755)
    line = instruction('RUN pip install')
    words = subprocess.run(
        ['sh', '-euc', line],
        cwd=context,
        env={'PATH': f'{bin}:{os.environ["PATH"]}', 'EXTRA': extra},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    files = [word for before, word in itertools.pairwise(words) if before == '-r']
    assert files == ['requirements.txt', *([f'requirements-{extra}.txt'] if extra else [])]
    assert all((context / file).is_file() for file in files)


def test_requirements_come_before_the_code():
    order = [LINES.index(f'COPY {what}') for what in ('requirements*.txt ./', '. .')]
    assert order[0] < next(i for i, line in enumerate(LINES) if line.startswith('RUN pip install')) < order[1]


def test_the_base_is_a_python_that_the_project_takes():
    version = re.fullmatch(r'python:(\d+)\.(\d+)\.(\d+)-slim-bookworm(@sha256:\w{64})?', instruction('FROM'))
    assert version and (int(version[1]), int(version[2])) >= (3, 11)


@pytest.mark.parametrize('name', ['cuda', 'tpu'])
def test_accelerators_get_the_pinned_jax(name):
    def pins(file):
        lines = (commands.ROOT / file).read_text().splitlines()
        return dict(line.split()[0].split('==') for line in lines if line and not line.startswith('#'))

    ours, extra = pins('requirements.txt'), pins(f'requirements-{name}.txt')
    assert not set(ours) & set(extra)
    assert {version for package, version in extra.items() if package.startswith('jax')} <= {ours['jax']}
    assert ('jax-cuda12-plugin' in extra) == (name == 'cuda') and ('libtpu' in extra) == (name == 'tpu')
